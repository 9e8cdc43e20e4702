#!/usr/bin/env bash
# Installs bubblewrap, the sandbox for generated code, if it is missing and may be installed. Never fails: without bubblewrap,
# divwatch refuses to run generated code and says so.
[ "$(uname)" = Linux ] || exit 0
command -v bwrap > /dev/null && exit 0
as=()
[ "$(id -u)" = 0 ] || as=(sudo -n)
if command -v apt-get > /dev/null; then
    "${as[@]}" apt-get install -y -qq bubblewrap > /dev/null 2>&1 ||
        { "${as[@]}" apt-get update -qq && "${as[@]}" apt-get install -y -qq bubblewrap; } > /dev/null 2>&1
fi
command -v bwrap > /dev/null || echo "bubblewrap is not installed: generated code cannot be judged (apt-get install bubblewrap)"
exit 0
