# Evaluates the module: the examples to what is written on a disk, and what is wrong to messages.
{ nixpkgsLib }:
let
  lib = import nixpkgsLib;

  # Nothing is built here, and a name tells as much.
  store = name: storeText name name;
  storeText = name: text: "/nix/store/${lib.substring 0 32 (builtins.hashString "sha256" text)}-${name}";

  pkgs.writeText = storeText;

  package = {
    type = "derivation";
    name = "darlings";
    outPath = store "darlings-0.1.0";
    withZfs = true;
    libraries = [
      "${store "zfs"}/lib/libzfs_core.so.3"
      "${store "zfs"}/lib/libnvpair.so.3"
    ];
  };

  preSwitchChecks.options.system.preSwitchChecks = lib.mkOption {
    type = lib.types.attrsOf lib.types.str;
    default = { };
  };

  activationScripts.options.system.activationScripts = lib.mkOption {
    type = lib.types.attrsOf lib.types.str;
    default = { };
  };

  evaluateWith =
    pkgs: modules:
    lib.evalModules {
      modules = [
        ../../nix/module.nix
        ./nixos.nix
        { _module.args.pkgs = pkgs; }
      ]
      ++ modules;
    };

  evaluate = modules: evaluateWith pkgs ([ { darlings.package = lib.mkDefault package; } ] ++ modules);

  failed = config: map (it: it.message) (lib.filter (it: !it.assertion) config.assertions);

  rendered =
    { config, ... }:
    let
      units = config.boot.initrd.systemd.units // config.systemd.units;
    in
    {
      files = {
        "darlings.toml" =
          (import ../../nix/resolve.nix {
            inherit config lib;
          }).toml;
        "tmpfiles.conf" = lib.concatMapStrings (line: "${line}\n") config.systemd.tmpfiles.rules;
      }
      // lib.mapAttrs (_: unit: unit.text) units;
      rest = {
        assertions = failed config;
        inherit (config) warnings;
        wantedBy = lib.mapAttrs (_: unit: unit.wantedBy) units;
        requiredBy = lib.mapAttrs (_: unit: unit.requiredBy) units;
        neededForBoot = lib.attrNames (lib.filterAttrs (_: it: it.neededForBoot) config.fileSystems);
        initrd = config.boot.initrd.systemd.storePaths;
        initrdBin = config.boot.initrd.systemd.extraBin;
        initrdContents = lib.mapAttrs (_: it: it.source) config.boot.initrd.systemd.contents;
        etc = lib.mapAttrs (_: it: it.source) config.environment.etc;
        preSwitchChecks = config.system.preSwitchChecks or { };
        activationScripts = config.system.activationScripts or { };
      };
    };

  examples = lib.mapAttrs' (
    file: _:
    lib.nameValuePair (lib.removeSuffix ".nix" file) (
      rendered (evaluate [
        preSwitchChecks
        (./examples + "/${file}")
      ])
    )
  ) (lib.filterAttrs (file: _: lib.hasSuffix ".nix" file) (builtins.readDir ./examples));

  # A configuration that is right, for those that are wrong to change.
  right = {
    darlings.enable = true;
    darlings.volumes."/" = { };
    darlings.directories = [
      "/var/lib/nixos"
      "/var/log"
    ];
    fileSystems = {
      "/" = {
        device = "rpool/local/root";
        fsType = "zfs";
      };
      "/nix" = {
        device = "rpool/local/nix";
        fsType = "zfs";
      };
      "/boot" = {
        device = "/dev/disk/by-label/boot";
        fsType = "vfat";
      };
    };
    boot.loader.systemd-boot.enable = lib.mkDefault true;
    users.mutableUsers = false;
    users.users.mia = { };
  };

  messages =
    { config, ... }:
    lib.deepSeq (lib.mapAttrs (_: it: it.mountPoint) config.fileSystems) {
      assertions = failed config;
      inherit (config) warnings;
    };

  options = lib.filter (option: lib.head option.loc == "darlings") (
    lib.optionAttrSetToDocList (evaluate [ preSwitchChecks ]).options
  );
in
{
  inherit examples;

  # What is said of each configuration of cases.nix, beside what should be.
  cases = map (case: {
    inherit (case) name;
    expected = {
      assertions = case.assertions or [ ];
      warnings = case.warnings or [ ];
    };
    found = messages (evaluate [
      preSwitchChecks
      right
      case.config
    ]);
  }) (import ./cases.nix { inherit lib; });

  functions = import ./functions.nix { inherit lib; };

  # What the presets persist where these services are on, and what they know of.
  presets =
    let
      persisted =
        more:
        let
          machine = evaluate [
            preSwitchChecks
            right
            {
              darlings.presets.enable = true;
              hardware.bluetooth.enable = true;
              networking.networkmanager.enable = true;
              security.acme.certs."example.org" = { };
              services.postgresql.enable = true;
            }
            more
          ];
        in
        {
          applied = machine.config.darlings.presets.applied;
          persisted = map (entry: entry.path) (
            lib.filter (entry: entry.option == "darlings.presets") (
              import ../../nix/resolve.nix { inherit (machine) config; inherit lib; }
            ).kept
          );
          made = lib.subtractLists [
            "d \"/var/lib/nixos\" :0755 :root :root - -"
            "d \"/var/log\" :0755 :root :root - -"
          ] machine.config.systemd.tmpfiles.rules;
        }
        // messages machine;
    in
    {
      on = persisted { };
      off = persisted { darlings.presets.enable = lib.mkForce false; };
      # One switched off, one named by its owner with more, one on a volume that is not reset.
      some = persisted {
        darlings.presets.disabled = [ "hardware.bluetooth.enable" ];
        darlings.directories = [ "/etc/NetworkManager" ];
        fileSystems."/var/lib/postgresql" = {
          device = "rpool/safe/postgresql";
          fsType = "zfs";
        };
      };
      all =
        let
          known = (import ../../nix/presets.nix { config.darlings.presets.enable = false; inherit lib; }).names;
          every = {
            darlings.presets = {
              enable = true;
              disabled = [ ];
            };
          };
        in
        (import ../../nix/presets.nix {
          config = lib.foldl' (
            config: option: lib.recursiveUpdate config (lib.setAttrByPath (lib.splitString "." option) true)
          ) every known;
          inherit lib;
        }).applied;
    };

  home = import ./home.nix {
    inherit
      evaluate
      lib
      messages
      preSwitchChecks
      right
      ;
  };

  # What becomes of each option that the other projects document, beside what docs/nixos.md says of it.
  documented =
    let
      of =
        darlings:
        let
          inherit
            (evaluate [
              preSwitchChecks
              right
              { inherit darlings; }
            ])
            config
            ;
        in
        {
          persisted = map (entry: entry.path) (import ../../nix/resolve.nix { inherit config lib; }).kept;
          made = config.systemd.tmpfiles.rules;
        }
        // messages { inherit config; };
      before = of { };
      comes =
        function: store:
        let
          after = of (function { "/persist" = store; });
        in
        lib.mapAttrs (name: lib.subtractLists before.${name}) after;
      row = function: row: {
        inherit (row) here option;
        found = comes function row.store;
        expected =
          if row ? same then
            comes function row.same
          else
            {
              inherit (row) made persisted;
              assertions = [ ];
              warnings = [ ];
            };
      };
      functions = import ../../nix/lib.nix { inherit lib; };
      rows = import ./documented.nix;
    in
    {
      impermanence = map (row functions.fromPersistence) rows.impermanence;
      preservation = map (row functions.fromPreservation) rows.preservation;
    };

  # Options that lack something that a reader needs.
  undocumented = map (option: option.name) (
    lib.filter (
      option:
      !(option.internal || !option.visible)
      && (
        (option.description or null) == null
        || (option.type or "") == ""
        || !(option ? example)
        || !(option ? default)
      )
      && !lib.hasPrefix "_module" option.name
    ) options
  );

  # As nixosOptionsDoc has them, without where they are declared. Those without a meaning are in tables.
  reference = lib.listToAttrs (
    map
      (option: {
        inherit (option) name;
        value = {
          inherit (option)
            description
            loc
            readOnly
            type
            ;
        }
        // lib.optionalAttrs (option ? default) { inherit (option) default; }
        // lib.optionalAttrs (option ? example) { inherit (option) example; };
      })
      (
        lib.filter (
          option:
          option.visible
          && !option.internal
          && !lib.hasPrefix "_module" option.name
          && !lib.hasPrefix "Has no meaning here" option.description
        ) options
      )
  );
  optionCount = lib.length options;

  flake = import ./flake.nix { inherit lib; };

  # Which Rust builds the package, and with which ZFS, for a machine and a flake with these.
  builds =
    let
      packages = rust: {
        writeText = storeText;
        callPackage =
          file: given:
          lib.makeOverridable (import file) (
            {
              inherit lib;
              stdenv = {
                hostPlatform.system = "x86_64-linux";
                buildPlatform.canExecute = _: true;
              };
              rustPlatform.buildRustPackage =
                arguments: arguments // arguments.passthru // package // { libraries = arguments.passthru.libraries; };
              rustc.version = rust;
              installShellFiles = package;
              patchelf = package;
              zfs.outPath = "/nix/store/zfs-of-nixpkgs";
            }
            // given
          );
      };
      build =
        rust: flakeRust:
        let
          inherit
            (evaluateWith (packages rust) [
              preSwitchChecks
              right
              {
                boot.zfs.package = {
                  type = "derivation";
                  name = "zfs";
                  outPath = "/nix/store/zfs-of-the-kernel";
                };
                darlings.flakePackage = lib.mkIf (flakeRust != null) (
                  (packages flakeRust).callPackage ../../nix/package.nix { }
                );
              }
            ])
            config
            ;
        in
        {
          rust = config.darlings.package.hasRust;
          inherit (config.darlings.package) libraries;
          said = failed config;
        };
    in
    {
      new = build "1.91.1" "1.90.0";
      old = build "1.86.0" "1.90.0";
      oldWithoutFlake = build "1.86.0" null;
      bothOld = build "1.86.0" "1.86.0";
    };

  # Without `enable`, and in the machine of build-vm, nothing is set.
  disabled = rendered (evaluate [
    preSwitchChecks
    right
    { darlings.enable = lib.mkForce false; }
  ]);
  vmVariant =
    let
      inherit (evaluate [
        preSwitchChecks
        right
      ]) config;
    in
    rendered (evaluate [
      preSwitchChecks
      right
      config.virtualisation.vmVariant
    ]);

  # Where nixpkgs has no pre-switch checks yet.
  old = rendered (evaluate [
    activationScripts
    right
  ]);
}
