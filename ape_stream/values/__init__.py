"""What moves through the pipeline; `ape_stream.types` is the public door to all of it.

    frame      Frame: one image of one stream
    prompts    Prompt, PromptKind, PromptSet: what to look for
    instances  Mask, Instances: what was found
    maps       SemanticMap, PanopticMap: the prompt or segment of every pixel
    queries    FrameQueries, NetworkFacts: what is known before any prompt
    texts      read_text, clean_text: the form of a text under which its embedding is known
    camera, depth, transform  Camera, Depth, Transform: an image's third dimension
    arrays     read-only arrays of a checked shape and dtype

All values are frozen and checked when made, so one can be handed from thread to thread without a
copy. `FrameResult` is in `ape_stream.result`: it also knows `supervision`, which needs masks.
"""
