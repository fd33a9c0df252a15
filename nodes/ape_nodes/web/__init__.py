"""The live page: a run in a browser, its prompts changed while it goes on (extra `web`).

protocol      messages to and from the page; conversation: what one page says
access        tokens, roles, Host and Origin
prompts       the prompts as pages edit them, with revisions
encoding/     images and views, each once; camera: one stream on its way to the viewers
viewer        one WebSocket and its credits; hub: what all viewers share
zones/        areas and lines, and their events; recorder: videos, snapshots
server, rest  the HTTP server, and its addresses for scripts; listening: its connections
sink          the output `web:`; client: asks a server
browser_camera  the source `browser://`; still: `still://`, one image for good
commands      `ape-stream live`; bench: `ape-stream bench live`; static/: the page
"""
