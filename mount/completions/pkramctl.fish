# Completion of pkramctl, pkramfs, mkfs.pkramfs and fsck.pkramfs for fish.
# The programs' own --help says which commands and options there are.

# The words so far, without options: "pkramctl info".
function __pkramfs_command
    set -l words (commandline -opc)
    for word in $words[2..-1]
        if not string match -q -- '-*' $word
            echo $word
            return
        end
    end
end

function __pkramfs_has_command
    __pkramfs_command | string length -q
end

function __pkramfs_options
    # Never what was typed: `./pkramctl` may be anybody's program.
    set -l program (string replace -r '.*/' '' -- (commandline -opc)[1])
    set -l command
    test $program = pkramctl; and set command (__pkramfs_command)
    $program $command --help 2>/dev/null | awk '/^  -/ {
        names = $1; $1 = ""; sub(/^ +/, ""); sub(/=.*/, "", names)
        n = split(names, each, ",")
        for (i = 1; i <= n; ++i) if (each[i] ~ /^--?[a-zA-Z]/) print each[i] "\t" $0 }'
end

function __pkramfs_commands
    pkramctl --help 2>/dev/null | awk '
        tolower($1) ~ /^subcommands:/ { on = 1; next }
        on && NF { name = $1; $1 = ""; sub(/^ +/, ""); print name "\t" $0 }'
end

function __pkramfs_mount_options
    set -l done (string match -r '.*,' -- (commandline -ct))
    pkramfs --help 2>/dev/null | awk -v done="$done" '
        /^Mount options/ { on = 1; next } /^Example/ { on = 0 }
        on && /^  [a-z]/ { name = $1; $1 = ""; sub(/^ +/, ""); sub(/=.*/, "=", name); print done name "\t" $0 }'
end

function __pkramfs_mkfs_options
    set -l done (string match -r '.*,' -- (commandline -ct))
    for option in size= pkram= mode= uid= gid=
        echo "$done$option"
    end
end

function __pkramfs_regions
    pkramctl list --names 2>/dev/null
end

complete -c pkramctl -f -n 'not __pkramfs_has_command' -a '(__pkramfs_commands)'
complete -c pkramctl -n __pkramfs_has_command -a '(__pkramfs_regions)'
for program in pkramfs mkfs.pkramfs fsck.pkramfs
    complete -c $program -a '(__pkramfs_regions)'
    complete -c $program -n 'string match -q -- "-*" (commandline -ct)' -a '(__pkramfs_options)'
end
complete -c pkramfs -o o -x -a '(__pkramfs_mount_options)'
complete -c mkfs.pkramfs -o o -x -a '(__pkramfs_mkfs_options)'
complete -c pkramctl -n 'string match -q -- "-*" (commandline -ct)' -a '(__pkramfs_options)'
