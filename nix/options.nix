# What a configuration can say.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib)
    literalExpression
    mkOption
    types
    ;
  inherit (types)
    attrsOf
    bool
    enum
    listOf
    nullOr
    str
    submodule
    ;

  unsigned = types.ints.unsigned;

  inherit (import ./entries.nix { inherit lib; }) paths reasons withoutMeaning;

  presets = import ./presets.nix { inherit config lib; };

  blank =
    what:
    mkOption {
      type = nullOr str;
      default = null;
      defaultText = lib.literalMD ''`"empty"`; `"blank"` for `rollback` on ZFS'';
      example = "blank";
      description = ''
        ${what}, or the word `empty`. A NixOS system starts from an empty root, since everything that
        is not in the Nix store is made at boot.
      '';
    };

  zfs = submodule {
    options = {
      dataset = mkOption {
        type = nullOr str;
        default = null;
        defaultText = literalExpression "config.fileSystems.<mountPoint>.device";
        example = "rpool/local/root";
        description = "The dataset that is reset.";
      };
      blank = blank "The name of the blank snapshot, without the dataset and the `@`";
      newerSnapshots = mkOption {
        type = enum [
          "refuse"
          "destroy"
        ];
        default = "refuse";
        example = "destroy";
        description = ''
          `rollback` destroys every snapshot newer than the blank. This says whether snapshots that darlings did
          not take stop the reset (`refuse`) or are destroyed with it.
        '';
      };
    };
  };

  btrfs = submodule {
    options = {
      device = mkOption {
        type = nullOr str;
        default = null;
        defaultText = literalExpression "config.fileSystems.<mountPoint>.device";
        example = "/dev/disk/by-label/nixos";
        description = "The block device of the filesystem; if it has several, any one of them.";
      };
      subvolume = mkOption {
        type = nullOr str;
        default = null;
        defaultText = lib.literalMD "what `subvol=` in `config.fileSystems.<mountPoint>.options` says";
        example = "@root";
        description = "The path of the subvolume that is reset, relative to the top level of the filesystem.";
      };
      blank = blank "The path of the blank subvolume, from the top level";
      generations = mkOption {
        type = nullOr str;
        default = null;
        defaultText = lib.literalMD "`@darlings/root` for `@`, `@darlings/home` for `@home`";
        example = "@darlings/root";
        description = "The path, relative to the top level, of the directory for previous states.";
      };
    };
  };

  dir = submodule {
    options = {
      path = mkOption {
        type = nullOr str;
        default = null;
        defaultText = literalExpression ''"/sysroot" + mountPoint'';
        example = "/sysroot";
        description = "The directory, as a path in the initrd.";
      };
      blank = blank "The directory that is the blank, as a path in the initrd";
    };
  };

  volume = submodule {
    options = {
      zfs = mkOption {
        type = nullOr zfs;
        default = null;
        defaultText = lib.literalMD "`{ }` where `config.fileSystems.<mountPoint>.fsType` is `zfs`";
        example = {
          blank = "blank";
        };
        description = "Settings for a ZFS dataset that complete or override `fileSystems`.";
      };
      btrfs = mkOption {
        type = nullOr btrfs;
        default = null;
        defaultText = lib.literalMD "`{ }` where `config.fileSystems.<mountPoint>.fsType` is `btrfs`";
        example = {
          blank = "@blank";
        };
        description = "Settings for a btrfs subvolume that complete or override `fileSystems`.";
      };
      dir = mkOption {
        type = nullOr dir;
        default = null;
        defaultText = lib.literalMD "`{ }` on every other filesystem on a disk";
        example = { };
        description = ''
          Settings for a plain directory on any other filesystem. It is reset once it is mounted, and cannot be
          combined with ZFS or btrfs volumes in one configuration.
        '';
      };
      strategy = mkOption {
        type = enum [
          "carry"
          "rollback"
        ];
        default = "carry";
        example = "rollback";
        description = ''
          `carry` moves what is kept, which costs a rename for each path. `rollback` goes back to the
          blank and clones what is kept; on ZFS it keeps no previous state.
        '';
      };
      keep = {
        generations = mkOption {
          type = nullOr unsigned;
          default = null;
          example = 10;
          description = "Maximum number of previous states. `null` means no limit.";
        };
        days = mkOption {
          type = nullOr unsigned;
          default = null;
          example = 30;
          description = "How many days to keep previous states and the contents of the attic. `null` means forever.";
        };
        minFree = mkOption {
          type = nullOr str;
          default = null;
          example = "5%";
          description = "When free space falls below this share of the filesystem, or this size, the oldest previous states are removed; the newest three always stay.";
        };
      };
    };
  };
in
{
  options.darlings = {
    enable = lib.mkEnableOption "erasing state at every boot, and keeping what is declared";

    package = mkOption {
      type = types.package;
      default =
        let
          ofThisMachine = {
            withZfs = lib.any (fileSystem: fileSystem.fsType == "zfs") (lib.attrValues config.fileSystems);
            zfs = config.boot.zfs.package;
          };
          own = pkgs.callPackage ./package.nix ofThisMachine;
          inherit (config.darlings) flakePackage;
        in
        # Built by the flake's nixpkgs it still opens this machine's libraries of ZFS, which have to fit its
        # kernel: an older library works in a process with a newer glibc.
        if own.isTooNew && flakePackage != null && !flakePackage.isTooNew then
          flakePackage.override ofThisMachine
        else
          own;
      defaultText = literalExpression "pkgs.callPackage ./package.nix { ... }";
      example = literalExpression "pkgs.darlings";
      description = ''
        The package. If any filesystem is ZFS, the default is built to find the libraries of `boot.zfs.package`;
        otherwise it is built without ZFS. It is built with this machine's nixpkgs or, if that Rust is too
        old, with the flake's nixpkgs.
      '';
    };

    flakePackage = mkOption {
      type = nullOr types.package;
      default = null;
      example = literalExpression "inputs.darlings.packages.x86_64-linux.darlings";
      internal = true;
      description = "The flake's own build, which the flake's module fills in.";
    };

    volumes = mkOption {
      type = attrsOf volume;
      default = { };
      example = literalExpression ''
        {
          "/" = { keep = { generations = 10; days = 30; }; };
          "/home" = { btrfs.blank = "@blank/home"; };
        }
      '';
      description = ''
        What is reset, by mount point. Device, dataset and subvolume are taken from `fileSystems`, so
        that `"/" = { }` is often enough.
      '';
    };

    onFailure = mkOption {
      type = enum [
        "boot"
        "emergency"
      ];
      default = "boot";
      example = "emergency";
      description = "What to do if a reset fails but every volume is complete: boot the previous state, or stop.";
    };

    users = mkOption {
      type = attrsOf (submodule ({ name, ... }: {
        options =
          paths {
            directories = [
              "Documents"
              {
                directory = ".ssh";
                mode = "0700";
              }
            ];
            files = [ ".bash_history" ];
          }
          // {
            username = mkOption {
              type = str;
              default = name;
              defaultText = literalExpression "<name>";
              example = "mia";
              description = "The user name, if it differs from the attribute name.";
            };
            home = mkOption {
              type = nullOr str;
              default = null;
              defaultText = literalExpression "config.users.users.<username>.home";
              example = "/home/mia";
              description = "The home that the paths are relative to.";
            };
          }
          // withoutMeaning reasons.user;
      }));
      default = { };
      example = {
        mia.directories = [ "projects" ];
      };
      description = "Paths to persist in users' homes, relative to each home.";
    };

    presets = {
      enable = mkOption {
        type = bool;
        default = false;
        example = true;
        description = ''
          Whether to persist the state of the services that this configuration turns on, where darlings knows
          about it: Bluetooth, NetworkManager, PostgreSQL, Docker, libvirt and others. `darlings.presets.applied`
          says which.
        '';
      };
      disabled = mkOption {
        type = listOf (enum presets.names);
        default = [ ];
        example = [ "virtualisation.docker.enable" ];
        description = "Options of services whose state the presets leave alone.";
      };
      applied = mkOption {
        type = attrsOf (attrsOf types.raw);
        default = presets.applied;
        defaultText = lib.literalMD "what the services of this configuration need";
        readOnly = true;
        example = {
          "hardware.bluetooth.enable" = {
            paths = [ "/var/lib/bluetooth" ];
            what = "Bluetooth: paired devices and their keys";
          };
        };
        description = "The options that the presets found, each with the paths that are persisted for it and what they hold.";
      };
    };

    createFiles = mkOption {
      type = bool;
      default = false;
      example = true;
      description = ''
        Whether to create missing files (empty), except those with `create = false`. preservation does this;
        impermanence does not.
      '';
    };

    initrd.requires = mkOption {
      type = listOf str;
      default = [ ];
      example = [ "load-keys.service" ];
      description = "Additional stage 1 units that the reset needs. It pulls them in and is ordered after them.";
    };

    check.enable = mkOption {
      type = bool;
      default = true;
      example = false;
      description = ''
        Whether `darlings check` looks at the system before a new configuration is activated, and stops
        the switch if the next boot would not reset. Where nixpkgs has no `system.preSwitchChecks`, the
        check runs during activation instead, where it can only warn.
      '';
    };

    purge = {
      enable = mkOption {
        type = bool;
        default = true;
        example = false;
        description = "Whether `darlings purge` removes, at idle priority, what resets left behind and `keep` no longer covers.";
      };
      onBoot = mkOption {
        type = str;
        default = "5min";
        example = "1h";
        description = "How long after boot the purge runs, as in systemd.time(7).";
      };
      interval = mkOption {
        type = str;
        default = "1d";
        example = "6h";
        description = "How long after the last purge the next one runs, as in systemd.time(7).";
      };
    };
  }
  // paths {
    directories = [
      "/var/log"
      {
        directory = "/var/lib/colord";
        user = "colord";
        group = "colord";
        mode = "u=rwx,g=rx,o=";
      }
    ];
    files = [
      "/etc/machine-id"
      {
        file = "/etc/nix/id_rsa";
        parentDirectory.mode = "0700";
      }
    ];
  }
  // withoutMeaning reasons.store;
}
