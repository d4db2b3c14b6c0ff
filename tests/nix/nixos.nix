# The options of NixOS that the module reads or sets, with the types that NixOS gives them. The module
# is evaluated against these where there is no whole nixpkgs.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  any =
    type: default:
    mkOption {
      inherit type default;
    };
  null' = type: any (types.nullOr type) null;
  bool = any types.bool false;
  strings = any (types.listOf types.str) [ ];

  source = types.submodule { options.source = mkOption { type = types.path; }; };

  unit = types.submodule {
    options = {
      enable = any types.bool true;
      text = null' types.str;
      wantedBy = strings;
      requiredBy = strings;
    };
  };

  fileSystem = types.submodule ({ name, ... }: {
    options = {
      mountPoint = any (types.addCheck types.str (it: it == "/" || !lib.hasSuffix "/" it)) name;
      device = null' types.str;
      fsType = any types.str "auto";
      options = any (types.listOf types.str) [ "defaults" ];
      neededForBoot = bool;
    };
  });

  user = types.submodule (
    { name, ... }:
    {
      options = {
        home = any types.str "/home/${name}";
        homeMode = any types.str "700";
        group = any types.str "users";
        hashedPasswordFile = null' types.str;
      };
    }
  );
in
{
  options = {
    # Of agenix and sops-nix.
    age.identityPaths = strings;
    age.secrets = any (types.attrsOf types.raw) { };
    sops.age.keyFile = null' types.str;
    sops.age.sshKeyPaths = strings;
    sops.gnupg.home = null' types.str;
    sops.gnupg.sshKeyPaths = strings;
    sops.secrets = any (types.attrsOf types.raw) { };
    assertions = any (types.listOf types.raw) [ ];
    warnings = strings;
    boot = {
      initrd.systemd = {
        enable = any types.bool true;
        contents = any (types.attrsOf source) { };
        extraBin = any (types.attrsOf types.path) { };
        mounts = any (types.listOf types.raw) [ ];
        storePaths = any (types.listOf (types.either types.singleLineStr types.package)) [ ];
        units = any (types.attrsOf unit) { };
      };
      initrd.network.ssh.enable = bool;
      initrd.network.ssh.hostKeys = any (types.listOf (types.either types.str types.path)) [ ];
      initrd.secrets = any (types.attrsOf (types.nullOr types.path)) { };
      initrd.luks.devices = any (types.attrsOf types.raw) { };
      isContainer = bool;
      lanzaboote.enable = bool;
      lanzaboote.pkiBundle = any types.str "/var/lib/sbctl";
      loader.efi.efiSysMountPoint = any types.str "/boot";
      loader.external.enable = bool;
      loader.generic-extlinux-compatible.enable = bool;
      loader.grub.efiSupport = bool;
      loader.grub.enable = bool;
      # What NixOS itself defines where GRUB is installed to a device.
      loader.grub.mirroredBoots = any (types.listOf types.raw) [
        {
          path = "/boot";
          inherit (config.boot.loader.efi) efiSysMountPoint;
        }
      ];
      loader.systemd-boot.enable = bool;
      loader.systemd-boot.xbootldrMountPoint = null' types.str;
      zfs.allowHibernation = bool;
      zfs.package = any types.raw {
        type = "derivation";
        name = "zfs";
        outPath = "/nix/store/00000000000000000000000000000000-zfs-user";
      };
    };
    environment.etc = any (types.attrsOf source) { };
    environment.persistence = any (types.attrsOf types.raw) { };
    environment.systemPackages = any (types.listOf types.package) [ ];
    fileSystems = any (types.attrsOf fileSystem) { };
    hardware.bluetooth.enable = bool;
    networking.networkmanager.enable = bool;
    security.acme.certs = any (types.attrsOf types.raw) { };
    services.postgresql.enable = bool;
    services.tailscale.enable = bool;
    virtualisation.docker.enable = bool;
    preservation.enable = bool;
    preservation.preserveAt = any (types.attrsOf types.raw) { };
    services.userborn.passwordFilesLocation = any types.str "/etc";
    system.etc.overlay.enable = bool;
    system.etc.overlay.mutable = any types.bool true;
    systemd.tmpfiles.rules = strings;
    systemd.units = any (types.attrsOf unit) { };
    users.mutableUsers = any types.bool true;
    users.users = any (types.attrsOf user) { };
    # Only where QEMU is the machine, as in the test framework.
    virtualisation.useBootLoader = any types.bool true;
    virtualisation.vmVariant = any types.raw { };
    virtualisation.vmVariantWithBootLoader = any types.raw { };
  };
}
