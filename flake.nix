{
  description = "Erases a machine's state at every boot, and keeps the paths that you persist, on ZFS and btrfs";

  # Nothing else is fetched.
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEach = make: lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEach (pkgs: rec {
        default = darlings;
        darlings = pkgs.callPackage ./nix/package.nix { };
        # For machines without ZFS.
        darlings-btrfs = darlings.override { withZfs = false; };
      });

      overlays.default = final: _: { darlings = final.callPackage ./nix/package.nix { }; };

      nixosModules = rec {
        default = darlings;
        darlings =
          { pkgs, ... }:
          {
            # Imported under both names it is still one module.
            key = "darlings#nixosModules.darlings";
            imports = [ ./nix/module.nix ];
            # What is built where the machine's own nixpkgs has too old a Rust.
            darlings.flakePackage = self.packages.${pkgs.stdenv.hostPlatform.system}.darlings or null;
          };
      };

      homeManagerModules = rec {
        default = darlings;
        darlings = ./nix/home-manager.nix;
      };

      # fromPersistence, fromHomePersistence and fromPreservation: see docs/nixos.md.
      lib = import ./nix/lib.nix { inherit lib; };

      devShells = forEach (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.darlings ];
          packages = with pkgs; [
            acl
            attr
            btrfs-progs
            cargo-nextest
            clippy
            e2fsprogs
            libcap
            nixfmt-rfc-style
            rsync
            rustfmt
            shellcheck
            strace
            xfsprogs
            zstd
          ];
          # Where the tests that evaluate the module find the library.
          NIXPKGS_LIB = "${nixpkgs}/lib";
        };
      });

      formatter = forEach (pkgs: pkgs.nixfmt-tree);

      checks = forEach (
        pkgs:
        {
          package = self.packages.${pkgs.stdenv.hostPlatform.system}.darlings;
          package-btrfs = self.packages.${pkgs.stdenv.hostPlatform.system}.darlings-btrfs;
        }
        // import ./vm-tests/nixos {
          inherit pkgs;
          module = self.nixosModules.default;
          functions = self.lib;
        }
      );
    };
}
