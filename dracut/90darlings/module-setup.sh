#!/bin/bash
# dracut(8) module: puts darlings, its configuration and its unit into an initrd that runs systemd.
#
# It is in every initrd of a machine that has /etc/darlings.toml. What makes the volumes reachable is
# read from there; a drop-in of one's own, /etc/systemd/system/darlings-reset.service.d/10-device.conf,
# replaces what comes of that.
#
# dracut provides these:
# shellcheck disable=SC2154 # initdir, systemdsystemunitdir, SYSTEMCTL, dracutsysrootdir

darlings_config=/etc/darlings.toml

# The values of a key in the volumes of the configuration, one a line: dataset, device, subvolume, or dir
# for the path of one. darlings itself reads it, as it will in the initrd, and says what is wrong with it.
darlings_values() {
    "${dracutsysrootdir-}/usr/bin/darlings" initrd-needs --config "${dracutsysrootdir-}$darlings_config" |
        sed --quiet "s/^$1 //p"
}

# Called by dracut: whether to be in the initrd.
check() {
    [[ -e ${dracutsysrootdir-}$darlings_config ]] || return 1
    require_binaries /usr/bin/darlings || return 1
    return 0
}

# Called by dracut: the modules that this one needs.
depends() {
    echo systemd-initrd
    if [[ -n $(darlings_values dataset) ]]; then echo zfs; fi
}

# Called by dracut: the drivers.
installkernel() {
    if [[ -n $(darlings_values subvolume) ]]; then hostonly='' instmods btrfs; fi
}

# The lines of [Unit] that name what makes the volumes reachable.
darlings_requirements() {
    local device devices=() imports=(zfs-import-scan.service zfs-import-cache.service)
    [[ -n $(darlings_values device)$(darlings_values dataset) ]] || return 0
    echo "[Unit]"
    while IFS= read -r device; do
        devices+=("$(systemd-escape --path --suffix=device "$device")")
    done < <(darlings_values device)
    if [[ ${#devices[@]} -gt 0 ]]; then
        # Wanted, not required: one disk that is dead must not take the reset of the others along, and
        # the root's mount. A reset finds by itself what is not there.
        echo "Wants=${devices[*]}"
        echo "After=${devices[*]}"
    fi
    if [[ -n $(darlings_values dataset) ]]; then
        # For the same reason, and another: the imports require systemd-udev-settle.service, which is
        # stopped before the switch to the root, and would take this unit with it. Whichever import does
        # not apply is skipped.
        echo "Wants=${imports[*]}"
        echo "After=${imports[*]}"
        # Where the keys of an encrypted pool are loaded.
        echo "After=dracut-pre-mount.service"
    fi
}

# Called by dracut: everything that is no driver.
install() {
    local unit=darlings-reset.service library drop_in own
    # A plain directory is reset once it is mounted, everything else before.
    if [[ -n $(darlings_values dir) ]]; then
        unit=darlings-reset-dir.service
    fi
    inst_binary /usr/bin/darlings
    inst_simple "$darlings_config"
    inst_multiple "$systemdsystemunitdir/$unit"

    drop_in=/etc/systemd/system/$unit.d
    for own in "${dracutsysrootdir-}$drop_in"/*.conf; do
        if [[ -e $own ]]; then inst_simple "$own" "${own#"${dracutsysrootdir-}"}"; fi
    done
    if [[ ! -e ${initdir}$drop_in/10-device.conf ]]; then
        mkdir --parents "${initdir}$drop_in"
        darlings_requirements >"${initdir}$drop_in/10-device.conf"
    fi
    # By its [Install] section: sysroot.mount, or initrd-root-fs.target for a directory.
    $SYSTEMCTL --quiet --root "$initdir" enable "$unit"

    # They are opened at run time, so that nothing finds them by looking at the binary.
    if [[ -n $(darlings_values dataset) ]]; then
        for library in libzfs_core.so.3 libnvpair.so.3; do
            inst_libdir_file "$library"
        done
    fi
}
