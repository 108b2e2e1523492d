#!/usr/bin/env bash
# build.sh OUTDIR: the jars of pom.xml, the compiled program, and OUTDIR/run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(realpath -m "${1:?usage: build.sh OUTDIR}")
mkdir -p "$(dirname "$out")"
part=$(mktemp -d "$out.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
cp "$here/pom.xml" "$part/"
(cd "$part" && nice -n 10 mvn --batch-mode --quiet --strict-checksums \
  org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
  -DincludeScope=runtime -DoutputDirectory="$part/lib" >&2)
nice -n 10 javac -Xlint:all,-classfile,-processing -Werror -proc:none --release 17 -cp "$part/lib/*" -d "$part/classes" "$here/Main.java" >&2
cat > "$part/run" <<'RUN'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
exec java -Xshare:auto -Xmx96m -cp "$here/classes:$here/lib/*" Main
RUN
chmod 755 "$part" "$part/run"
rm -rf "$out"
mv -T "$part" "$out"
