"""`ape-stream bench live`.

viewers    the server's CPU time and the images' ages, for viewers without a browser
screen     ages on the screen of a Chromium
soak       the same for long, minute by minute, with what the server holds
measured   what was measured, as it comes
report     all of it as tables, and the bars
"""
