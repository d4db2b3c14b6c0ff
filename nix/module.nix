# The NixOS module: erases state at every boot and keeps what is declared. See docs/nixos.md.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  cfg = config.darlings;

  resolved = import ./resolve.nix { inherit config lib; };
  checked = import ./assertions.nix {
    inherit
      config
      lib
      options
      resolved
      ;
  };
  units = import ./units.nix { inherit cfg lib resolved; };

  toml = pkgs.writeText "darlings.toml" resolved.toml;

  # The configuration that is being switched to, not the one that is there. Of the fstab there is only the
  # old one; that the new one mounts nothing by a number is asserted.
  # It asks zpool whether blocks are cloned, and an activation has next to nothing on its PATH.
  check =
    lib.optionalString (resolved.ofKind "zfs" != [ ]) "PATH=${lib.getBin config.boot.zfs.package}/bin:$PATH "
    + "${cfg.package}/bin/darlings check --fstab /dev/null --config ${toml}";

  hasPreSwitchChecks = options.system ? preSwitchChecks;

  # The machine of `nixos-rebuild build-vm` has disks of its own, with nothing on them to reset.
  inert.darlings.enable = lib.mkForce false;
in
{
  imports = [ ./options.nix ];

  config = lib.mkMerge [
    (lib.optionalAttrs (options ? virtualisation.vmVariant) {
      virtualisation.vmVariant = inert;
      virtualisation.vmVariantWithBootLoader = inert;
    })

    # Users may declare paths whether or not anything is reset.
    (lib.optionalAttrs (options ? home-manager.sharedModules) {
      home-manager.sharedModules = [ ./home-manager.nix ];
    })

    (lib.mkIf cfg.enable (
      lib.mkMerge [
        {
          inherit (checked) assertions warnings;

          environment.etc."darlings.toml".source = toml;
          environment.systemPackages = [ cfg.package ];

          # Stage 1 mounts what it has reset; nobody else may come first.
          # A name with a slash at its end is one of the assertions, which nixpkgs' own error would hide.
          fileSystems =
            let
              inherit (resolved.functions) isAbsolute normalize;
            in
            lib.genAttrs (map normalize (lib.filter isAbsolute (lib.attrNames cfg.volumes))) (_: {
              neededForBoot = true;
            });

          boot.initrd.systemd = {
            contents."/etc/darlings.toml".source = toml;
            # For the emergency shell, whose reader is told to type it.
            extraBin.darlings = "${cfg.package}/bin/darlings";
            # The libraries are opened at run time, so that nothing finds them by looking at the binary.
            storePaths = [ "${cfg.package}/bin/darlings" ] ++ cfg.package.libraries or [ ];
            units."darlings-reset.service" = {
              text = units.reset;
              inherit (resolved.ordering) requiredBy;
            };
          };

          systemd.tmpfiles.rules = import ./tmpfiles.nix { inherit lib resolved; };
        }

        (lib.mkIf cfg.purge.enable {
          systemd.units."darlings-purge.service".text = units.purge;
          systemd.units."darlings-purge.timer" = {
            text = units.timer;
            wantedBy = [ "timers.target" ];
          };
        })

        (lib.mkIf cfg.check.enable (
          if hasPreSwitchChecks then
            { system.preSwitchChecks.darlings = check; }
          else
            {
              # At boot the reset was there already, and said what is wrong.
              system.activationScripts.darlings-check = ''
                if [[ -n ''${NIXOS_ACTION-} ]]; then
                  ${check}
                fi
              '';
            }
        ))
      ]
    ))
  ];
}
