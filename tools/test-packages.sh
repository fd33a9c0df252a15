#!/bin/sh
# Installs the programs that some tests use, where that needs no password; without them those tests
# are skipped.
#   chromium, chromium-driver, fonts-dejavu-core   the live page (112 MB to fetch, 376 MB on disk)
#   mosquitto                                      an MQTT broker for events of zones
set -eu
missing=
{ command -v chromium && command -v chromedriver; } >/dev/null ||
    missing="chromium chromium-driver fonts-dejavu-core"
# Debian puts it where the path of a user does not lead.
PATH="$PATH:/usr/sbin" command -v mosquitto >/dev/null || missing="$missing mosquitto"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then as_root=
elif sudo -n true 2>/dev/null; then as_root=sudo
else
    echo "some tests are skipped: run: sudo apt-get install $missing" >&2
    exit 0
fi
command -v apt-get >/dev/null || exit 0
$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of names
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    $missing >/dev/null
