#!/bin/sh
# Takes the libraries of the page from npm again, with their licenses: sh fxpass/report/html/vendor/fetch.sh
set -eu
cd "$(dirname "$0")"
fetched=$(mktemp -d)
for package in d3@7.9.2 @dagrejs/dagre@3.1.3; do
    tar xzf "$fetched/$(npm pack --silent --pack-destination "$fetched" "$package")" -C "$fetched"
    name=${package%@*}
    name=${name##*/}
    cp "$fetched/package/dist/$name.min.js" "$name.min.js"
    cp "$fetched/package/LICENSE" "$name.LICENSE"
done
cp "$fetched/package/dist/dagre.min.js.LEGAL.txt" .
