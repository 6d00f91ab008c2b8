#!/bin/sh
# Runs a compile command and leaves what ptxas says of each kernel beside the object, in <object>.ptxas; the rest is shown.
# A shell script, because its path stays the same under build isolation: another command line would recompile every kernel.
for word in "$@"; do
  [ "$before" = "-o" ] && object=$word
  before=$word
done
"$@" >"$object.ptxas" 2>&1
status=$?
grep -v -e '^ptxas info' -e 'bytes stack frame' "$object.ptxas"
exit $status
