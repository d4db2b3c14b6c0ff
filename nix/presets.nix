# The state of the services that a configuration turns on, from the list that `darlings suggest` has.
{ config, lib }:
let
  known = (lib.importTOML ../src/ask/suggest/known.toml).known;

  # Each option that turns something on, with what is known of its state.
  byOption = lib.zipAttrs (
    lib.concatMap (
      it: lib.mapAttrsToList (option: paths: { ${option} = { inherit paths; inherit (it) what; }; }) (it.nixos or { })
    ) known
  );

  isOn =
    option:
    let
      value = lib.attrByPath (lib.splitString "." option) false config;
    in
    value == true || (lib.isAttrs value && value != { });

  cfg = config.darlings.presets;
in
{
  names = lib.attrNames byOption;

  applied = lib.optionalAttrs cfg.enable (
    lib.mapAttrs (_: all: {
      paths = lib.concatMap (it: it.paths) all;
      what = lib.concatMapStringsSep "; " (it: it.what) all;
    }) (lib.filterAttrs (option: _: isOn option && !lib.elem option cfg.disabled) byOption)
  );
}
