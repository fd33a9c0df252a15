"""Zones in a camera's image: areas and lines.

counting      who is inside, who came and went
events        what is reported of it: JSON lines, webhook, MQTT
"""
