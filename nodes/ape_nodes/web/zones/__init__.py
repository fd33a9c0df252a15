"""Zones in a camera's image: areas and lines.

counting      who is inside, who came and went
looking       where to look: what lies outside is left out
events        what is reported of it: JSON lines, webhook, MQTT
"""
