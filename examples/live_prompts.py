"""Change what a running pipeline looks for; no frame is lost."""

import ape_stream

with ape_stream.open("examples/demo.mp4", "red apple", threshold=0.4) as run:
    for result in run:
        if result.frame.index == 10:
            run.set_prompts(["dog face", "sailboat"])
        if result.frame.index == 20:
            run.set_threshold(0.6)
        if result.frame.index == 30:
            break
        print(result.frame, result.prompts.texts, len(result.instances))
    print(f"{run.stats().published} results, {run.stats().dropped} dropped")
