#!/bin/sh
# Starts popgate's @NAME@ with the interpreter of the `popgate` beside it. A console script
# would load Python's site module at each connection; this starts Python bare (-I -S -E), and uses
# nothing but words of sh's own. docs/decisions/0050 says why it is a shell script.
self=$0
while [ -L "$self" ]; do
    target=$(readlink "$self")
    case $target in
        /*) self=$target ;;
        *) self=${self%/*}/$target ;;
    esac
done
bin=${self%/*}
case $self in */*) ;; *) bin=. ;; esac

if ! { read -r python && { read -r quoted || :; }; } <"$bin/popgate"; then
    echo "@NAME@: Fatal: popgate is not installed beside it" >&2
    exit 111
fi
python=${python#'#!'}
if [ "$python" = /bin/sh ]; then
    # the path is long or has a blank: '''exec' "/a path/bin/python" "$0" "$@"
    quoted=${quoted#*"exec' "}
    case $quoted in
        \"*) quoted=${quoted#\"} python=${quoted%%\"*} ;;
        \'*) quoted=${quoted#\'} python=${quoted%%\'*} ;;
        *) python=${quoted%% *} ;;
    esac
fi

# Where the package is, or "" where there is none or a choice: then Python looks for it, which takes longer.
place=
for each in "$bin"/../lib/python3*/*-packages; do
    if [ -f "$each/popgate/commands/@MODULE@.py" ]; then
        place=$place$each
    else # an editable installation: the first line of a file leads to the checkout
        for pth in "$each/_editable_impl_popgate.pth" "$each/_popgate.pth"; do
            [ -f "$pth" ] || continue
            read -r each <"$pth" || :
            place=$place$each
        done
    fi
done
flags=-ISE
[ -f "$place/popgate/commands/@MODULE@.py" ] || place= flags=-I

# The packages hold a docstring and no more; made here, five files less are read, and none is looked
# for in archives. Python sets LC_CTYPE in the C locale, which the next program shall not see.
exec "$python" $flags -c '
import os, sys
_, place, lc_ctype, *arguments = sys.argv
if place:
    del sys.path_hooks[0]
    for name in ("", ".commands", ".grants", ".grants.stores", ".values"):
        package = sys.modules["popgate" + name] = type(sys)("popgate" + name)
        package.__path__ = [place + "/popgate" + name.replace(".", "/")]
if lc_ctype:
    os.environ["LC_CTYPE"] = lc_ctype
else:
    os.environ.pop("LC_CTYPE", None)
from popgate.commands.@MODULE@ import main
main(arguments)
' "$place" "${LC_CTYPE-}" "$@"
