# Configurations that are wrong or probably not meant, and what must be said of each: all of it, and
# nothing else. Each changes the one of eval.nix, which is right.
{ lib }:
let
  inherit (lib) mkForce;
  case =
    name: config: assertions:
    { inherit name config assertions; };
  warns =
    name: config: warnings:
    { inherit name config warnings; };
  onBtrfs = options: {
    fileSystems."/" = {
      device = mkForce "/dev/disk/by-label/nixos";
      fsType = mkForce "btrfs";
      options = mkForce options;
    };
  };
  onExt4 = {
    fileSystems."/" = {
      device = mkForce "/dev/disk/by-label/nixos";
      fsType = mkForce "ext4";
    };
  };
  withBoot =
    mountPoint:
    mkForce {
      "/" = {
        device = "rpool/local/root";
        fsType = "zfs";
      };
      "/nix".device = "rpool/local/nix";
      ${mountPoint}.device = "/dev/sda1";
    };
  withoutBoot = withBoot null;
  # GRUB on two disks.
  mirrored = {
    systemd-boot.enable = false;
    grub.enable = true;
    grub.mirroredBoots = [
      {
        path = "/boot1";
        devices = [ "/dev/sda" ];
      }
      {
        path = "/boot2";
        efiSysMountPoint = "/efi2";
        devices = [ "/dev/sdb" ];
      }
    ];
  };
  wouldEraseBoot =
    places:
    "darlings.volumes.\"/\": ${places} would be erased, which the machine boots from; give it a file system of its own that is not reset, or add it to darlings.directories.";
in
[
  (case "a configuration that is right" { } [ ])

  # --- paths
  (case "a relative path" { darlings.directories = [ "var/cache" ]; } [
    "darlings.directories: \"var/cache\" is relative; write the absolute path."
  ])
  (case "dots" { darlings.files = [ "/var/../etc/x" ]; } [
    "darlings.files: \"/var/../etc/x\": `..` is not allowed in paths; write the path itself."
  ])
  (case "dots in what is excluded" {
    darlings.directories = [
      {
        directory = "/srv/a";
        exclude = [ "../b" ];
      }
    ];
  } [ "darlings.directories: \"/srv/a\": `..` is not allowed in paths; write the path itself." ])
  (case "an absolute path, and all of it, in what is excluded" {
    darlings.directories = [
      {
        directory = "/srv/a";
        exclude = [
          "/srv/a/cache"
          "."
        ];
      }
    ];
  } [
    "darlings.directories.*.exclude: \"/srv/a/cache\" is absolute; give it relative to the persisted path."
    "darlings.directories.*.exclude: \".\" names the whole of \"/srv/a\"; declare what to keep instead."
  ])
  (case "a path that is excluded twice, and one that is declared and excluded" {
    darlings.directories = [
      {
        directory = "/srv";
        exclude = [
          "a"
          "./a/"
          "b"
        ];
      }
      "/srv/b"
    ];
  } [
    "\"darlings.directories.*.exclude\": \"/srv/a\" is declared or excluded twice; keep one of them."
    "\"darlings.directories\" and \"darlings.directories.*.exclude\": \"/srv/b\" is declared or excluded twice; keep one of them."
  ])
  (case "a path of the tool's own" {
    darlings.volumes."/home" = { };
    fileSystems."/home" = {
      device = "rpool/local/home";
      fsType = "zfs";
    };
    darlings.files = [
      "/home/.darlings/x"
      "/home/mia/.darlings"
    ];
  } [ "darlings.files: \"/home/.darlings/x\" lies in `.darlings`, which is the tool's own." ])
  (case "an entry without a path" { darlings.files = [ { mode = "0600"; } ]; } [
    "darlings.files: an entry lacks its `file`."
  ])
  (case "a volume's own mount point" {
    darlings.volumes."/home" = { };
    fileSystems."/home" = {
      device = "rpool/local/home";
      fsType = "zfs";
    };
    darlings.directories = [ "/home/" ];
  } [
    "darlings.directories: \"/home/\" is the mount point of a volume that is reset, and would keep all of it; do not reset the volume instead (darlings.volumes)."
  ])
  (case "a path on no volume" {
    darlings.volumes = mkForce { "/home" = { }; };
    fileSystems."/home" = {
      device = "rpool/local/home";
      fsType = "zfs";
    };
    darlings.directories = mkForce [
      "/home/mia"
      "/srv"
    ];
  } [
    "darlings.directories: \"/srv\" is on no volume that is reset; remove it, or add the volume that holds it to darlings.volumes."
  ])
  (case "a path that is declared twice, by different lists" {
    darlings.directories = [ "/home/mia/projects" ];
    darlings.users.mia.directories = [ "projects/" ];
  } [
    "\"darlings.directories\" and \"darlings.users.mia.directories\": \"/home/mia/projects\" is declared 2 times; keep one of them."
  ])
  (case "modes that only change something" {
    darlings.directories = [
      {
        directory = "/srv/a";
        mode = "u+w";
        parentDirectory.mode = "rwx";
      }
    ];
  } [
    "darlings.directories: \"/srv/a\": \"u+w\" is no mode for something that is made; write it in octal (\"0750\") or as \"u=rwx,g=rx,o=\"."
    "darlings.directories: \"/srv/a\": \"rwx\" is no mode for something that is made; write it in octal (\"0750\") or as \"u=rwx,g=rx,o=\"."
  ])
  (case "a user that is not there" { darlings.users.tom.files = [ "x" ]; } [
    "darlings.users.tom: there is no such user in users.users; declare one, or correct the name."
  ])

  (case "a user under another name" {
    darlings.users.work = {
      username = "mia";
      home = "/srv/mia";
      files = [ "/.bash_history" ];
    };
    darlings.directories = [ "/srv/mia/.bash_history" ];
  } [
    "\"darlings.directories\" and \"darlings.users.work.files\": \"/srv/mia/.bash_history\" is declared 2 times; keep one of them."
  ])
  (case "a user that is not there under another name" {
    darlings.users.mia.username = "tom";
    darlings.users.mia.files = [ "x" ];
  } [
    "darlings.users.mia.username: there is no such user in users.users; declare one, or correct the name."
  ])

  # --- volumes
  (case "nothing to reset" {
    darlings.volumes = mkForce { };
    darlings.directories = mkForce [ ];
  } [
    "darlings.volumes: there is nothing to reset; name the mount points that are, as in darlings.volumes.\"/\" = { }."
  ])
  (case "a mount point that is not there" { darlings.volumes."/srv" = { }; } [
    "darlings.volumes.\"/srv\": fileSystems.\"/srv\" is no file system on a disk, or is not there; reset what holds the files, or remove the volume."
  ])
  (case "a bind mount" {
    darlings.volumes."/srv" = { };
    fileSystems."/srv" = {
      device = "/nix/precious";
      fsType = "none";
      options = [ "bind" ];
    };
  } [
    "darlings.volumes.\"/srv\": fileSystems.\"/srv\" is a bind mount, or does not say its file system; write its fsType there, or what is reset here: zfs, btrfs, or dir, which erases the directory whatever it is."
  ])
  (case "a bind mount with the file system of its source" {
    darlings.volumes."/srv" = { };
    fileSystems."/srv" = {
      device = "/nix/precious";
      fsType = "ext4";
      options = [ "noatime,rbind" ];
    };
  } [
    "darlings.volumes.\"/srv\": fileSystems.\"/srv\" is a bind mount, or does not say its file system; write its fsType there, or what is reset here: zfs, btrfs, or dir, which erases the directory whatever it is."
  ])
  (case "a file system that nobody names" {
    darlings.volumes."/srv" = { };
    fileSystems."/srv".device = "/dev/sdb1";
  } [
    "darlings.volumes.\"/srv\": fileSystems.\"/srv\" is a bind mount, or does not say its file system; write its fsType there, or what is reset here: zfs, btrfs, or dir, which erases the directory whatever it is."
  ])
  (case "a file system that only the volume names" {
    darlings.volumes."/srv".btrfs.subvolume = "@srv";
    fileSystems."/srv".device = "/dev/sdb1";
  } [ ])
  (case "a tmpfs" {
    fileSystems."/" = {
      device = mkForce "none";
      fsType = mkForce "tmpfs";
    };
  } [
    "darlings.volumes.\"/\": fileSystems.\"/\" is in memory, which a reboot empties without darlings; remove the volume. docs/tmpfs-root.md says what darlings can do for such a machine, and how its root moves to a disk."
  ])
  (case "a relative mount point" {
    darlings.volumes."srv" = { };
    fileSystems."srv" = {
      device = "rpool/srv";
      fsType = "zfs";
    };
  } [ "darlings.volumes.\"srv\": a mount point is an absolute path without `..`." ])
  (case "a mount point with a slash at its end" {
    darlings.volumes."/srv/" = { };
    fileSystems."/srv" = {
      device = "rpool/srv";
      fsType = "zfs";
    };
  } [ "darlings.volumes.\"/srv/\": write the mount point as fileSystems does, \"/srv\"." ])
  (case "two kinds at once" {
    darlings.volumes."/" = {
      zfs = { };
      btrfs = { };
    };
  } [ "darlings.volumes.\"/\": \"zfs\" and \"btrfs\" are given; a volume is one of them." ])
  (case "a subvolume that nobody names" (onBtrfs [ "compress=zstd" ]) [
    "darlings.volumes.\"/\".btrfs.subvolume: fileSystems.\"/\" does not say it (subvol= in options); write it here."
  ])
  (case "the top level of a btrfs" (onBtrfs [ "subvol=/" ]) [
    "darlings.volumes.\"/\".btrfs.subvolume: \"/\" is the top level of the filesystem, which nothing can take the place of; name what lies below it (a root that is the top level is moved first: `btrfs subvolume snapshot / /@`, and boot that)."
  ])
  (case "dots in a blank" (
    lib.recursiveUpdate (onBtrfs [ "subvol=@" ]) { darlings.volumes."/".btrfs.blank = "@/../blank"; }
  ) [
    "darlings.volumes.\"/\".btrfs.blank: \"@/../blank\" holds `..`; write the path it stands for."
  ])
  (case "a pool's own dataset" { fileSystems."/".device = mkForce "rpool"; } [
    "darlings.volumes.\"/\".zfs.dataset: a pool's own top dataset cannot be reset; put the root in a dataset below it."
  ])
  (case "a subvolume by its number" (onBtrfs [ "subvolid=256" ]) [
    "fileSystems.\"/\".options: `subvolid=` mounts the old tree after a reset, whatever has its name; write `subvol=`."
  ])
  (case "two volumes on one dataset" {
    darlings.volumes."/home" = { };
    fileSystems."/home" = {
      device = "rpool/local/root";
      fsType = "zfs";
    };
  } [
    "darlings.volumes: \"/\" and \"/home\" are all the dataset \"rpool/local/root\"; each may be reset once."
  ])
  (case "two volumes on one subvolume, spelt in two ways" (
    lib.recursiveUpdate (onBtrfs [ "subvol=@" ]) {
      darlings.volumes."/home" = { };
      fileSystems."/home" = {
        device = "LABEL=nixos";
        fsType = "btrfs";
        options = [ "subvol=/@" ];
      };
    }
  ) [
    "darlings.volumes: \"/\" and \"/home\" are all the subvolume \"/@\" of /dev/disk/by-label/nixos; each may be reset once."
  ])
  (case "previous states that a rollback cannot keep" {
    darlings.volumes."/" = {
      strategy = "rollback";
      keep.days = 3;
    };
  } [
    "darlings.volumes.\"/\".keep: `rollback` on ZFS keeps no previous state, since a rollback destroys later snapshots; remove it, or write strategy = \"carry\"."
  ])
  (case "a rollback to nothing" {
    darlings.volumes."/" = {
      strategy = "rollback";
      zfs.blank = "empty";
    };
  } [
    "darlings.volumes.\"/\".zfs.blank: `rollback` on ZFS needs a snapshot to go back to; name one, or write strategy = \"carry\"."
  ])
  (case "a directory rolled back" (
    lib.recursiveUpdate onExt4 { darlings.volumes."/".strategy = "rollback"; }
  ) [ "darlings.volumes.\"/\".strategy: a plain directory has nothing to roll back to; write \"carry\"." ])
  (case "directories beside a dataset" (
    lib.recursiveUpdate onExt4 {
      darlings.volumes."/home" = { };
      fileSystems."/home" = {
        device = "rpool/home";
        fsType = "zfs";
      };
    }
  ) [
    "darlings.volumes: \"/\" are plain directories, which are reset once they are mounted, and the others before that; use one kind or the other."
  ])
  (case "directories in each other" (
    lib.recursiveUpdate onExt4 {
      darlings.volumes."/home" = { };
      fileSystems."/home" = {
        device = "/dev/sdb1";
        fsType = "xfs";
      };
    }
  ) [
    "darlings.volumes: \"/home\" is mounted in \"/\", and plain directories in each other cannot be reset; reset one of them."
  ])

  # --- the system
  (case "a stage 1 of scripts" { boot.initrd.systemd.enable = false; } [
    "boot.initrd.systemd.enable: darlings resets in systemd's stage 1; set it to true."
  ])
  (case "the Nix store on what is erased" { fileSystems = mkForce {
    "/" = {
      device = "rpool/local/root";
      fsType = "zfs";
    };
    "/boot".device = "/dev/sda1";
  }; } [
    "darlings.volumes.\"/\": \"/nix/store\" and \"/nix/var/nix\" would be erased, which NixOS cannot do without; give /nix a file system of its own that is not reset (fileSystems.\"/nix\")."
  ])
  (case "the database of Nix on what is erased" { fileSystems = mkForce {
    "/" = {
      device = "rpool/local/root";
      fsType = "zfs";
    };
    "/nix/store".device = "rpool/local/store";
    "/boot".device = "/dev/sda1";
  }; } [
    "darlings.volumes.\"/\": \"/nix/var/nix\" would be erased, which NixOS cannot do without; give /nix a file system of its own that is not reset (fileSystems.\"/nix\")."
  ])
  (case "a /nix that is kept, but for its database" {
    fileSystems = mkForce {
      "/" = {
        device = "rpool/local/root";
        fsType = "zfs";
      };
      "/boot".device = "/dev/sda1";
    };
    darlings.directories = [
      {
        directory = "/nix";
        exclude = [ "var" ];
      }
    ];
  } [
    "darlings.volumes.\"/\": \"/nix/var/nix\" would be erased, which NixOS cannot do without; give /nix a file system of its own that is not reset (fileSystems.\"/nix\")."
  ])
  (case "a /nix that a unit of stage 1 mounts" {
    boot.initrd.systemd.mounts = [
      {
        where = "/sysroot/nix";
        what = "/dev/disk/by-label/nix";
      }
    ];
    fileSystems = withBoot "/boot" // {
      content = removeAttrs (withBoot "/boot").content [ "/nix" ];
    };
  } [ ])
  (case "a /nix that a unit of stage 1 would mount, were it enabled" {
    boot.initrd.systemd.mounts = [
      {
        where = "/sysroot/nix";
        what = "/dev/disk/by-label/nix";
        enable = false;
      }
    ];
    fileSystems = withBoot "/boot" // {
      content = removeAttrs (withBoot "/boot").content [ "/nix" ];
    };
  } [
    "darlings.volumes.\"/\": \"/nix/store\" and \"/nix/var/nix\" would be erased, which NixOS cannot do without; give /nix a file system of its own that is not reset (fileSystems.\"/nix\")."
  ])
  (case "a /nix that is reset" { darlings.volumes."/nix" = { }; } [
    "darlings.volumes.\"/nix\": \"/nix/store\" and \"/nix/var/nix\" would be erased, which NixOS cannot do without; give /nix a file system of its own that is not reset (fileSystems.\"/nix\")."
  ])
  (case "a system partition on what is erased" { fileSystems = withoutBoot; } [
    "darlings.volumes.\"/\": \"/boot\" would be erased, which the machine boots from; give it a file system of its own that is not reset, or add it to darlings.directories."
  ])
  (case "GRUB's files on what is erased, beside a system partition" {
    boot.loader.systemd-boot.enable = false;
    boot.loader.grub.enable = true;
    boot.loader.efi.efiSysMountPoint = "/boot/efi";
    fileSystems = withBoot "/boot/efi";
  } [
    "darlings.volumes.\"/\": \"/boot\" would be erased, which the machine boots from; give it a file system of its own that is not reset, or add it to darlings.directories."
  ])
  (case "extlinux' files and a system partition on what is erased" {
    boot.loader.generic-extlinux-compatible.enable = true;
    boot.loader.efi.efiSysMountPoint = "/efi/";
    fileSystems = withoutBoot;
  } [
    "darlings.volumes.\"/\": \"/boot\" and \"/efi\" would be erased, which the machine boots from; give it a file system of its own that is not reset, or add it to darlings.directories."
  ])
  (case "a loader that has all its files on the system partition" {
    boot.loader.efi.efiSysMountPoint = "/efi";
    fileSystems = withBoot "/efi";
  } [ ])
  (case "GRUB on a BIOS, which needs no system partition" {
    boot.loader.systemd-boot.enable = false;
    boot.loader.grub.enable = true;
    boot.loader.efi.efiSysMountPoint = "/efi";
    fileSystems = withBoot "/boot";
  } [ ])
  (case "GRUB for EFI whose system partition is on what is erased" {
    boot.loader.systemd-boot.enable = false;
    boot.loader.grub.enable = true;
    boot.loader.grub.efiSupport = true;
    boot.loader.efi.efiSysMountPoint = "/efi";
    fileSystems = withBoot "/boot";
  } [ (wouldEraseBoot "\"/efi\"") ])
  (case "GRUB on two disks, each with a file system" {
    boot.loader = mirrored;
    fileSystems = mkForce {
      "/" = {
        device = "rpool/local/root";
        fsType = "zfs";
      };
      "/nix".device = "rpool/local/nix";
      "/boot1".device = "/dev/sda1";
      "/boot2".device = "/dev/sdb1";
    };
  } [ ])
  (case "GRUB on two disks, one of them on what is erased" {
    boot.loader = mirrored;
    fileSystems = withBoot "/boot1";
  } [ (wouldEraseBoot "\"/boot2\"") ])
  (case "GRUB for EFI on two disks, one of them on what is erased" {
    boot.loader = lib.recursiveUpdate mirrored { grub.efiSupport = true; };
    fileSystems = withBoot "/boot1";
  } [ (wouldEraseBoot "\"/boot2\" and \"/efi2\"") ])
  (case "the partition for systemd-boot's kernels on what is erased" {
    boot.loader.systemd-boot.xbootldrMountPoint = "/kernels";
    fileSystems = withBoot "/boot";
  } [ (wouldEraseBoot "\"/kernels\"") ])
  (case "a loader from outside nixpkgs" {
    boot.loader.systemd-boot.enable = false;
    boot.loader.external.enable = true;
    fileSystems = withoutBoot;
  } [ (wouldEraseBoot "\"/boot\"") ])
  (case "lanzaboote" {
    boot.loader.systemd-boot.enable = false;
    boot.lanzaboote.enable = true;
    boot.lanzaboote.pkiBundle = "/nix/persist/sbctl";
    boot.loader.efi.efiSysMountPoint = "/efi";
    fileSystems = withoutBoot;
  } [ (wouldEraseBoot "\"/efi\"") ])
  (case "no boot loader at all, as in a microvm" {
    boot.loader.systemd-boot.enable = false;
    fileSystems = withoutBoot;
  } [ ])
  (case "a container" {
    boot.loader.systemd-boot.enable = false;
    boot.isContainer = true;
  } [
    "boot.isContainer: a container has no stage 1, so darlings never resets it; set darlings.enable to false here, or reset the container's root on the host."
  ])
  (case "a machine of the test framework whose kernel QEMU starts" {
    boot.loader.grub.enable = true;
    virtualisation.useBootLoader = false;
    fileSystems = withoutBoot;
  } [ ])
  (case "GRUB's files in what is kept" {
    boot.loader.grub.enable = true;
    fileSystems = withoutBoot;
    darlings.directories = [ "/boot" ];
  } [ ])
  (case "an overlay on /etc" {
    system.etc.overlay.enable = true;
    darlings.files = [ "/etc/machine-id" ];
  } [
    "system.etc.overlay.enable: /etc is an overlay that hides what is kept in the root's /etc (\"/etc/machine-id\"); turn the overlay off, or do not declare paths in /etc."
  ])
  (case "an overlay on /etc that hides nothing" { system.etc.overlay.enable = true; } [ ])
  (case "hibernation with ZFS" { boot.zfs.allowHibernation = true; } [
    "boot.zfs.allowHibernation: a ZFS pool that was imported to reset it must not be resumed from a hibernation image; turn hibernation off."
  ])
  (case "a package without ZFS" {
    darlings.package = {
      type = "derivation";
      name = "darlings";
      outPath = "/nix/store/00000000000000000000000000000000-darlings";
      withZfs = false;
    };
  } [
    "darlings.package: it was built without ZFS, and \"/\" is a ZFS dataset; build it with `withZfs = true`."
  ])

  # --- secrets
  (case "agenix with keys that are erased" {
    age.secrets.x = { };
    age.identityPaths = [
      "/etc/ssh/ssh_host_ed25519_key"
      "/etc/ssh/ssh_host_rsa_key"
    ];
  } [
    "age.identityPaths: \"/etc/ssh/ssh_host_ed25519_key\" and \"/etc/ssh/ssh_host_rsa_key\" would be erased, and agenix could decrypt nothing at the next boot. Persist one of them."
  ])
  (case "agenix with one key that is kept" {
    age.secrets.x = { };
    age.identityPaths = [
      "/etc/ssh/ssh_host_ed25519_key"
      "/etc/ssh/ssh_host_rsa_key"
    ];
    darlings.files = [ "/etc/ssh/ssh_host_ed25519_key" ];
  } [ ])
  (case "agenix without a secret" { age.identityPaths = [ "/etc/ssh/ssh_host_ed25519_key" ]; } [ ])
  (case "agenix with a key that the configuration links" {
    age.secrets.x = { };
    age.identityPaths = [ "/etc/ssh/key" ];
    environment.etc."ssh/key".source = "/nix/persist/key";
  } [ ])
  (case "agenix with a key that impermanence brings" {
    age.secrets.x = { };
    age.identityPaths = [ "/etc/ssh/key" ];
    environment.persistence."/nix/persist".files = [ { file = "/etc/ssh/key"; } ];
  } [ ])
  (case "sops-nix with a key of age that is erased, beside one that is not" {
    sops.secrets.x = { };
    sops.age.keyFile = "/var/lib/sops-nix/key.txt";
    sops.age.sshKeyPaths = [ "/nix/persist/key" ];
  } [
    "sops.age.keyFile: \"/var/lib/sops-nix/key.txt\" would be erased, and sops-nix could decrypt nothing at the next boot. Persist it."
  ])
  (case "sops-nix with a host key that is erased" {
    sops.secrets.x = { };
    sops.age.sshKeyPaths = [ "/etc/ssh/ssh_host_ed25519_key" ];
  } [
    "sops: \"/etc/ssh/ssh_host_ed25519_key\" would be erased, and sops-nix could decrypt nothing at the next boot. Persist it."
  ])
  (case "sops-nix with a key that is kept, and GnuPG's that is not" {
    sops.secrets.x = { };
    sops.age.sshKeyPaths = [ "/var/log/key" ];
    sops.gnupg.home = "/root/.gnupg";
  } [ ])
  (case "a password from a file that is erased, and one from memory" {
    users.users.mia.hashedPasswordFile = "/etc/secrets/mia";
    users.users.tom.hashedPasswordFile = "/run/secrets-for-users/tom";
  } [
    "users.users.mia.hashedPasswordFile: \"/etc/secrets/mia\" would be erased, and the user would have no password at the next boot. Persist it."
  ])
  (case "a password from a file that only a new user needs" {
    users.mutableUsers = mkForce true;
    users.users.mia.hashedPasswordFile = "/etc/secrets/mia";
    darlings.files = [ "/etc/shadow" ];
  } [ ])
  (case "what the initrd gets a copy of" {
    boot.initrd.network.ssh.enable = true;
    boot.initrd.network.ssh.hostKeys = [ "/etc/secrets/initrd/key" ];
    # As NixOS has it, and a key of LUKS that is its own source.
    boot.initrd.secrets."/etc/ssh/key" = "/etc/secrets/initrd/key";
    boot.initrd.secrets."/root/luks.key" = null;
    boot.initrd.secrets."/kept" = "/var/log/kept";
  } [
    "boot.initrd.network.ssh.hostKeys: \"/etc/secrets/initrd/key\" would be erased, and the boot loader could not be installed again, since the initrd gets a copy then. Persist it."
    "boot.initrd.secrets: \"/root/luks.key\" would be erased, and the boot loader could not be installed again, since the initrd gets a copy then. Persist it."
  ])
  (case "the keys of Secure Boot" { boot.lanzaboote.enable = true; } [
    "boot.lanzaboote.pkiBundle: \"/var/lib/sbctl\" would be erased, and what is installed after that would not be signed with your keys. Persist it."
  ])
  (warns "secrets on a file system that is mounted too late" {
    fileSystems."/secrets" = {
      device = "rpool/safe/secrets";
      fsType = "zfs";
    };
    age.secrets.x = { };
    age.identityPaths = [ "/secrets/age" ];
    sops.secrets.x = { };
    sops.age.keyFile = "/secrets/sops";
    users.users.mia.hashedPasswordFile = "/secrets/mia";
  } [
    "age.identityPaths: \"/secrets/age\" is on fileSystems.\"/secrets\", which is mounted after the activation reads it. Set fileSystems.\"/secrets\".neededForBoot to true."
    "sops: \"/secrets/sops\" is on fileSystems.\"/secrets\", which is mounted after the activation reads it. Set fileSystems.\"/secrets\".neededForBoot to true."
    "users.users.mia.hashedPasswordFile: \"/secrets/mia\" is on fileSystems.\"/secrets\", which is mounted after the activation reads it. Set fileSystems.\"/secrets\".neededForBoot to true."
  ])
  (warns "secrets on a file system that stage 1 mounts" {
    fileSystems."/secrets" = {
      device = "rpool/safe/secrets";
      fsType = "zfs";
      neededForBoot = true;
    };
    users.users.mia.hashedPasswordFile = "/secrets/mia";
  } [ ])

  # --- warnings
  (warns "passwords that are erased" { users.mutableUsers = mkForce true; } [
    "users.mutableUsers is set, and /etc/shadow is erased: passwords that passwd sets are gone at the next boot, and users without a declared password are locked out. Set it to false and declare passwords, or add \"/etc/shadow\" to darlings.files."
  ])
  (warns "passwords that are erased where userborn has them" {
    users.mutableUsers = mkForce true;
    services.userborn.passwordFilesLocation = "/var/lib/users";
    darlings.files = [ "/etc/shadow" ];
  } [
    "users.mutableUsers is set, and /var/lib/users/shadow is erased: passwords that passwd sets are gone at the next boot, and users without a declared password are locked out. Set it to false and declare passwords, or add \"/var/lib/users/shadow\" to darlings.files."
  ])
  (warns "passwords with the ids, beside an overlay that takes nothing" {
    users.mutableUsers = mkForce true;
    system.etc.overlay = {
      enable = true;
      mutable = false;
    };
  } [ ])
  (warns "passwords that an overlay has on what is erased" {
    users.mutableUsers = mkForce true;
    system.etc.overlay.enable = true;
  } [
    "users.mutableUsers is set, and /.rw-etc, where the overlay on /etc has /etc/shadow, is erased: passwords that passwd sets are gone at the next boot, and users without a declared password are locked out. Set it to false and declare passwords, or turn the overlay off."
  ])
  (warns "passwords that are kept" {
    users.mutableUsers = mkForce true;
    darlings.files = [ "/etc/shadow" ];
  } [ ])
  (warns "ids that are erased" { darlings.directories = mkForce [ "/var/log" ]; } [
    "/var/lib/nixos is erased, and with it which user has which id: files that are kept may come to belong to others. Add it to darlings.directories."
  ])
  (warns "ids that are erased with a volume of their own" {
    darlings.volumes."/var" = { };
    fileSystems."/var" = {
      device = "rpool/local/var";
      fsType = "zfs";
    };
    darlings.directories = mkForce [ "/var/log" ];
  } [
    "/var/lib/nixos is erased, and with it which user has which id: files that are kept may come to belong to others. Add it to darlings.directories."
  ])
  (warns "ids that are excluded from what is kept" {
    darlings.directories = mkForce [
      {
        directory = "/var/lib";
        exclude = [ "nixos" ];
      }
    ];
  } [
    "/var/lib/nixos is erased, and with it which user has which id: files that are kept may come to belong to others. Add it to darlings.directories."
  ])
  (warns "ids on a file system that is not reset" {
    fileSystems."/var/lib" = {
      device = "rpool/safe/lib";
      fsType = "zfs";
    };
    darlings.directories = mkForce [ "/var/log" ];
  } [ ])
  (warns "ids that are kept with more" { darlings.directories = mkForce [ "/var/lib" ]; } [ ])
  (warns "a path in a path" { darlings.files = [ "/var/log/wtmp" ]; } [
    "darlings.files: \"/var/log/wtmp\" lies in \"/var/log\" of darlings.directories, which keeps it already; remove one of them."
  ])
  (warns "a path in what another excludes" {
    darlings.directories = [
      {
        directory = "/srv";
        exclude = [ "cache" ];
      }
      "/srv/cache/wanted"
    ];
  } [ ])
  (warns "a path below another mount" { darlings.directories = [ "/nix/var/log" ]; } [
    "darlings.directories: \"/nix/var/log\" is on fileSystems.\"/nix\", which is not reset, so that there is nothing to keep; remove it."
  ])
  (warns "a path below a mount of stage 1's own" {
    boot.initrd.systemd.mounts = [ { where = "/sysroot/srv/seed"; } ];
    darlings.directories = [ "/srv/seed/x" ];
  } [
    "darlings.directories: \"/srv/seed/x\" is on the mount of \"/srv/seed\" in boot.initrd.systemd.mounts, which is not reset, so that there is nothing to keep; remove it."
  ])
  (warns "the lists of impermanence left beside ours, with the mounts it makes in stage 1"
    {
      environment.persistence."/nix/persist" = {
        directories = [
          {
            directory = "/var/log";
            dirPath = "/var/log";
          }
          { directory = "/var/lib/nixos/"; }
        ];
        files = [ { file = "/etc/other"; } ];
        users.mia.directories = [ { directory = "projects"; } ];
      };
      boot.initrd.systemd.mounts = [
        { where = "/sysroot/var/log"; }
        { where = "/sysroot/var/lib/nixos"; }
      ];
      darlings.users.mia.directories = [ "projects/ours" ];
    }
    [
      "environment.persistence: impermanence still puts its own \"/var/lib/nixos\" and 2 more over what darlings persists there. Bring the content over with `darlings adopt`, then remove these paths from environment.persistence."
    ]
  )
  (warns "the lists of preservation left beside ours" {
    preservation.enable = true;
    preservation.preserveAt."/nix/persist" = {
      users.work = {
        username = "mia";
        home = "/home/mia";
        directories = [ { directory = "/home/mia/projects"; } ];
      };
    };
    darlings.users.mia.directories = [ "projects" ];
  } [
    "preservation.preserveAt: preservation still puts its own \"/home/mia/projects\" over what darlings persists there. Bring the content over with `darlings adopt`, then remove these paths from preservation.preserveAt."
  ])
  (warns "a tool that has other paths, and one that is off" {
    preservation.preserveAt."/nix/persist".directories = [ { directory = "/var/log"; } ];
    environment.persistence."/nix/persist".directories = [ { directory = "/var/lib/bluetooth"; } ];
    environment.persistence."/old" = {
      enable = false;
      directories = [ { directory = "/var/log"; } ];
    };
  } [ ])
  (warns "ids that impermanence brings" {
    environment.persistence."/nix/persist".directories = [ { directory = "/var/lib"; } ];
    darlings.directories = mkForce [ "/srv" ];
  } [ ])
  (case "the store of impermanence on what is erased" {
    environment.persistence."/persist".directories = [ { directory = "/srv"; } ];
  } [
    "environment.persistence.\"/persist\": the store of impermanence would be erased, with all that is in it; give it a file system of its own, or persist it until `darlings adopt` has brought its content over."
  ])
  (warns "options without a meaning" {
    darlings.hideMounts = true;
    darlings.allowTrash = true;
    darlings.enableWarnings = true;
    darlings.directories = [
      {
        directory = "/srv/a";
        hideMount = false;
        how = "symlink";
        mountOptions = [ "bind" ];
      }
      {
        directory = "/srv/b";
        how = "bindmount";
      }
    ];
    darlings.files = [
      {
        file = "/srv/c";
        method = "symlink";
        inInitrd = true;
      }
    ];
    darlings.users.mia = {
      commonMountOptions = [ "x-gvfs-hide" ];
      files = [
        {
          file = "x";
          configureParent = true;
          createLinkTarget = true;
        }
      ];
    };
  } [
    "darlings.allowTrash does nothing here: nothing is mounted, and trash works as in any directory."
    "darlings.enableWarnings does nothing here: a warning here means that something will not work."
    "darlings.hideMounts does nothing here: there are no mounts to hide."
    "darlings.directories.*.hideMount does nothing here: there are no mounts to hide."
    "darlings.directories.*.how does nothing here: persisted paths are neither mounted nor linked."
    "darlings.directories.*.mountOptions does nothing here: there are no mounts that could have options."
    "darlings.files.*.inInitrd does nothing here: everything is in place before the root is mounted."
    "darlings.files.*.method does nothing here: persisted paths are neither mounted nor linked."
    "darlings.users.mia.commonMountOptions does nothing here: there are no mounts that could have options."
    "darlings.users.mia.files.*.configureParent does nothing here: the parent is made as `parent` says whenever that is given."
    "darlings.users.mia.files.*.createLinkTarget does nothing here: there is no link."
  ])
]
