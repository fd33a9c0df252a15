"""The command `ape-stream`.

main      the program: exit codes, errors as one line, signals
group     commands of plugins among our own
commands  annotate, run, recover, doctor, list; options: what they share. Quick to import
plan      from options to a run
execute   runs it, shows progress, reports
progress  the bar or lines while it runs
console   standard output and error that may be closed or full
doctor    what is installed
"""
