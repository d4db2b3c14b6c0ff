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
      defaultText = lib.literalMD ''`"empty"`, for the strategy `rollback` on ZFS `"blank"`'';
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
          For the strategy `rollback`, which destroys every snapshot newer than the blank: whether those
          that are not darlings' own stop the reset, or go.
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
        description = "The block device of the file system; any one of several.";
      };
      subvolume = mkOption {
        type = nullOr str;
        default = null;
        defaultText = lib.literalMD "what `subvol=` in `config.fileSystems.<mountPoint>.options` says";
        example = "@root";
        description = "The path of the subvolume that is reset, from the top level of the file system.";
      };
      blank = blank "The path of the blank subvolume, from the top level";
      generations = mkOption {
        type = nullOr str;
        default = null;
        defaultText = lib.literalMD "`@darlings/root` for `@`, `@darlings/home` for `@home`";
        example = "@darlings/root";
        description = "The path of the directory where previous states go, from the top level.";
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
        description = "The directory, where the initrd has it mounted.";
      };
      blank = blank "The directory that is the blank, where the initrd has it";
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
        description = "Of a ZFS dataset: what is not taken from `fileSystems`.";
      };
      btrfs = mkOption {
        type = nullOr btrfs;
        default = null;
        defaultText = lib.literalMD "`{ }` where `config.fileSystems.<mountPoint>.fsType` is `btrfs`";
        example = {
          blank = "@blank";
        };
        description = "Of a btrfs subvolume: what is not taken from `fileSystems`.";
      };
      dir = mkOption {
        type = nullOr dir;
        default = null;
        defaultText = lib.literalMD "`{ }` on every other file system on a disk";
        example = { };
        description = ''
          Of a plain directory, on whatever file system. It is reset once it is mounted, and cannot be
          mixed with the other two in one configuration.
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
          description = "At most so many previous states are kept. `null`: as many as there are.";
        };
        days = mkOption {
          type = nullOr unsigned;
          default = null;
          example = 30;
          description = "Previous states, and what is in the attic, are kept for so many days. `null`: for ever.";
        };
        minFree = mkOption {
          type = nullOr str;
          default = null;
          example = "5%";
          description = "While less than this share of the file system, or this size, is free, the oldest previous states go, down to the newest three.";
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
        The package. By default it finds the libraries of `boot.zfs.package` where there is a ZFS file
        system, and has nothing to do with ZFS elsewhere. It is built with this machine's nixpkgs or, where
        the Rust of that is too old, with the nixpkgs of the flake.
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
        that `"/" = { }` can be all there is to say.
      '';
    };

    onFailure = mkOption {
      type = enum [
        "boot"
        "emergency"
      ];
      default = "boot";
      example = "emergency";
      description = "What a failed reset does while every volume is complete: boot what was there before, or stop.";
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
              description = "The user whose paths these are, where the attribute has another name.";
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
      description = "What is kept below the homes of users, relative to them.";
    };

    presets = {
      enable = mkOption {
        type = bool;
        default = false;
        example = true;
        description = ''
          Whether to persist the state of the services that this configuration turns on, as far as it is well
          known: Bluetooth, NetworkManager, PostgreSQL, Docker, libvirt and others. `darlings.presets.applied`
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
        Whether files that are missing are made, empty, unless their `create` is `false`. preservation
        makes them so; impermanence does not.
      '';
    };

    initrd.requires = mkOption {
      type = listOf str;
      default = [ ];
      example = [ "load-keys.service" ];
      description = "Units of stage 1 that the reset needs beside those that the module knows: it starts them and comes after them.";
    };

    check.enable = mkOption {
      type = bool;
      default = true;
      example = false;
      description = ''
        Whether `darlings check` looks at the system before a new configuration is activated, and stops
        the switch if the next boot would not reset. Where nixpkgs has no `system.preSwitchChecks` it is
        part of the activation, which can say so but comes too late to stop it.
      '';
    };

    purge = {
      enable = mkOption {
        type = bool;
        default = true;
        example = false;
        description = "Whether `darlings purge` removes, at idle priority, what resets have left and `keep` no longer keeps.";
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
