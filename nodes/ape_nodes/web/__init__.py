"""The live page: a run in a browser, its prompts changed while it goes on (extra `web`).

protocol    messages to and from the page
access      tokens, roles, Host and Origin
prompts     the prompts as pages edit them, with revisions
camera      one stream on its way to the viewers; encoder: each size and codec once
viewer      one WebSocket and its credits; hub: what all viewers share
server      the HTTP server; sink: the output `web:`
commands    `ape-stream live`; static/: the page
"""
