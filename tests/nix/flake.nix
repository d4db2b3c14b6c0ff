# Evaluates the flake with packages that are only named.
{ lib }:
let
  named = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/${name}";
  };

  packagesOf = packagesFor "x86_64-linux";

  # What is built on one system for another.
  packagesFor =
    buildSystem: system:
    let
      packages = {
        inherit lib;
        stdenv = {
          hostPlatform.system = system;
          buildPlatform.canExecute = host: host.system == buildSystem;
        };
        callPackage =
          file: given:
          lib.makeOverridable (import file) (
            {
              inherit lib;
              inherit (packages) stdenv;
              rustPlatform.buildRustPackage = arguments: arguments // named arguments.pname;
              installShellFiles = named "install-shell-files";
              patchelf = named "patchelf";
              rustc.version = "1.90.0";
              zfs = named "zfs";
            }
            // given
          );
        mkShell = shell: shell;
        testers.runNixOSTest = test: test;
      };
    in
    lib.genAttrs [
      "acl"
      "attr"
      "btrfs-progs"
      "cargo-nextest"
      "clippy"
      "e2fsprogs"
      "libcap"
      "nixfmt-rfc-style"
      "nixfmt-tree"
      "rsync"
      "rustfmt"
      "shellcheck"
      "strace"
      "xfsprogs"
      "zfs"
      "zstd"
    ] named
    // packages;

  outputs = (import ../../flake.nix).outputs {
    self = outputs;
    nixpkgs = {
      inherit lib;
      outPath = "/nix/store/nixpkgs";
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ] packagesOf;
    };
  };

  inherit (outputs.packages.x86_64-linux) darlings darlings-btrfs;
  crossed = (outputs.overlays.default (packagesFor "x86_64-linux" "aarch64-linux") { }).darlings;
  checks = outputs.checks.x86_64-linux;
  script =
    test:
    test.testScript {
      nodes.machine.specialisation.after.configuration.environment.etc."darlings.toml".source = "/nix/store/darlings.toml";
    };
in
{
  outputs = lib.mapAttrs (
    name: output:
    if lib.isAttrs output && output ? x86_64-linux then
      assert lib.attrNames output == [
        "aarch64-linux"
        "x86_64-linux"
      ];
      if lib.isDerivation output.x86_64-linux || output.x86_64-linux ? inputsFrom then
        true
      else
        lib.attrNames output.x86_64-linux
    else if lib.isAttrs output then
      lib.attrNames output
    else
      lib.typeOf output
  ) outputs;

  default = outputs.packages.x86_64-linux.default.pname;
  overlaid = (outputs.overlays.default (packagesOf "x86_64-linux") { }).darlings.pname;
  module =
    let
      module = outputs.nixosModules.default { pkgs = packagesOf "x86_64-linux"; };
    in
    {
      imports = map baseNameOf module.imports;
      builds = module.darlings.flakePackage.pname;
      elsewhere = (outputs.nixosModules.default { pkgs = packagesOf "riscv64-linux"; }).darlings.flakePackage;
    };
  shell = outputs.devShells.x86_64-linux.default.NIXPKGS_LIB;
  shellPackages = lib.length outputs.devShells.x86_64-linux.default.packages;
  package = {
    inherit (darlings) pname postFixup;
    runsWhenBuilt = lib.hasInfix "xtask man" darlings.postInstall;
    inherit (darlings.meta) mainProgram;
    inherit (darlings.passthru) libraries;
  };
  withoutZfs = {
    inherit (darlings-btrfs) postFixup;
    inherit (darlings-btrfs.passthru) libraries withZfs;
  };
  crossed = { inherit (crossed) postInstall; };
  scripts = lib.mapAttrs (_: script) (lib.filterAttrs (_: check: check ? testScript) checks);
}
