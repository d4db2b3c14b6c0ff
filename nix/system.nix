# What the rest of the system needs from the volumes that are reset: the store, the boot loader, passwords.
{
  config,
  erased,
  lib,
  listed,
  quoted,
  resolved,
  wouldErase,
  wrong,
}:
let
  inherit (lib)
    concatMap
    filter
    optional
    optionals
    ;
  inherit (resolved)
    entries
    functions
    ofKind
    volumes
    ;
  inherit (functions) isAtOrBelow normalize;

  hasEtcOverlay = config.system.etc.overlay.enable or false;

  # The directories that boot loaders read. GRUB has one for each mirror, and needs the EFI system partition
  # only where it was built for EFI; extlinux needs /boot; the others keep everything on that partition.
  bootsFrom =
    let
      inherit (config.boot) loader;
      systemPartition = loader.efi.efiSysMountPoint or "/boot";
      isOn = name: loader.${name}.enable or false;
      ofMirror =
        mirror:
        [ mirror.path ]
        ++ optional (loader.grub.efiSupport or false) (
          if mirror.efiSysMountPoint or null == null then mirror.path else mirror.efiSysMountPoint
        );
      onSystemPartition =
        config.boot.lanzaboote.enable or false
        || lib.any isOn [
          "external"
          "limine"
          "refind"
          "systemd-boot"
        ];
      extended = loader.systemd-boot.xbootldrMountPoint or null;
    in
    # QEMU itself starts the kernels of most of the test framework's machines.
    optionals (config.virtualisation.useBootLoader or true) (
      lib.unique (
        map normalize (
          optionals (isOn "grub") (concatMap ofMirror (loader.grub.mirroredBoots or [ { path = "/boot"; } ]))
          ++ optional (isOn "generic-extlinux-compatible") "/boot"
          ++ optional onSystemPartition systemPartition
          ++ optional (isOn "systemd-boot" && extended != null) extended
        )
      )
    );

  aboutSystem =
    optional (config.darlings.package.isTooNew or false) (
      wrong "darlings.package: darlings needs Rust ${config.darlings.package.needsRust} or newer, as nixpkgs 25.11 and later have it, and here it would be built with ${config.darlings.package.hasRust}. Use a newer nixpkgs for this machine, or let the flake have one of its own: remove inputs.darlings.inputs.nixpkgs.follows."
    )
    ++ optional (config.boot.isContainer or false) (
      wrong "boot.isContainer: a container has no stage 1, so darlings never resets it; set darlings.enable to false here, or reset the container's root on the host."
    )
    ++ optional (volumes == [ ]) (
      wrong "darlings.volumes: there is nothing to reset; name the mount points that are, as in darlings.volumes.\"/\" = { }."
    )
    ++ optional (!config.boot.initrd.systemd.enable) (
      wrong "boot.initrd.systemd.enable: darlings resets in systemd's stage 1; set it to true."
    )
    ++ wouldErase [
      "/nix/store"
      "/nix/var/nix"
    ] "which NixOS cannot do without; give /nix a file system of its own that is not reset (fileSystems.\"/nix\")"
    ++ wouldErase bootsFrom "which the machine boots from; give it a file system of its own that is not reset, or add it to darlings.directories"
    ++ optional (hasEtcOverlay && lib.any (entry: isAtOrBelow "/etc" entry.path) entries) (
      wrong "system.etc.overlay.enable: /etc is an overlay that hides what is kept in the root's /etc (${
        listed (map (entry: entry.path) (filter (entry: isAtOrBelow "/etc" entry.path) entries))
      }); turn the overlay off, or do not declare paths in /etc."
    )
    ++ optional (ofKind "zfs" != [ ] && (config.boot.zfs.allowHibernation or false)) (
      wrong "boot.zfs.allowHibernation: a ZFS pool that was imported to reset it must not be resumed from a hibernation image; turn hibernation off."
    );

  # Where passwords are: in /etc, unless userborn has them elsewhere.
  shadow = normalize "${config.services.userborn.passwordFilesLocation or "/etc"}/shadow";

  # What an overlay on /etc is given is in its upper layer, from where nobody would keep a single file.
  # One that takes nothing has passwords in /var/lib/nixos, of which there is a warning already.
  shadowInOverlay = hasEtcOverlay && shadow == "/etc/shadow";
  overlayLoses =
    config.system.etc.overlay.mutable or true && erased "/.rw-etc/upper/shadow";

  lockedOut =
    what: remedy:
    "users.mutableUsers is set, and ${what} is erased: passwords that passwd sets are gone at the next boot, and users without a declared password are locked out. Set it to false and declare passwords, or ${remedy}.";

  passwordsAreLost = if shadowInOverlay then overlayLoses else erased shadow;

  secrets = import ./secrets.nix {
    inherit
      config
      erased
      lib
      listed
      quoted
      resolved
      wrong
      ;
    # A user who is there already keeps the password that is there.
    passwordsAreKept = config.users.mutableUsers or true && !passwordsAreLost;
  };

  lost =
    optionals (config.users.mutableUsers or true) (
      optional passwordsAreLost (
        if shadowInOverlay then
          lockedOut "/.rw-etc, where the overlay on /etc has /etc/shadow," "turn the overlay off"
        else
          lockedOut shadow "add ${quoted shadow} to darlings.files"
      )
    )
    ++
      optional (erased "/var/lib/nixos")
        "/var/lib/nixos is erased, and with it which user has which id: files that are kept may come to belong to others. Add it to darlings.directories.";
in
{
  assertions = aboutSystem ++ secrets.assertions;
  warnings = lost ++ secrets.warnings;
}
