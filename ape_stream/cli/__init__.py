"""The command `ape-stream`.

main      the program: exit codes, errors as one line, signals
group     commands of plugins among our own
commands  annotate, run, recover, doctor, list; options: what they share. Quick to import
index     keep what the network sees before any word
annotate, plan, shelf  from options to a live run, or to a job over files
execute   runs it, shows progress, reports
progress, shelf_view   the bar or lines while it runs
console   standard output and error that may be closed or full
doctor    what is installed
"""
