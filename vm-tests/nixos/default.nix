# The checks of the flake that boot NixOS, one for each root. `nix flake check` runs them.
{
  pkgs,
  module,
  functions,
}:
let
  machine = import ./machine.nix { inherit pkgs module functions; };
in
{
  nixos-zfs = machine (import ./zfs.nix);
  nixos-btrfs = machine (import ./btrfs.nix);
}
