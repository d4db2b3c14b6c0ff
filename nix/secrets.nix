# Secrets that something reads at boot, or that installing the boot loader reads, from places that are erased or
# mounted too late.
{
  config,
  erased,
  lib,
  listed,
  passwordsAreKept,
  quoted,
  resolved,
  wrong,
}:
let
  inherit (lib)
    concatMap
    filter
    mapAttrsToList
    optional
    optionals
    ;
  inherit (resolved) functions;
  inherit (functions) isAtOrBelow;

  # In memory, or made anew at every boot by the configuration itself.
  isMadeAtBoot =
    path:
    lib.any (place: isAtOrBelow place path) [
      "/dev"
      "/nix/store"
      "/proc"
      "/run"
      "/sys"
    ]
    || config.environment.etc ? ${lib.removePrefix "/etc/" path};

  isGone = path: !isMadeAtBoot path && erased path;

  # Stage 1 ends with the activation, which reads them.
  isLate = path: !isMadeAtBoot path && !resolved.isInStage1 (resolved.mountOf path);

  paths = map (path: functions.normalize (toString path));

  # What one of these is enough for, and whether none of them is there in time.
  oneOf =
    option: purpose: given:
    let
      all = paths given;
    in
    optional (all != [ ] && lib.all isGone all) (
      wrong "${option}: ${listed all} would be erased, ${purpose}. Persist ${
        if lib.length all == 1 then "it" else "one of them"
      }."
    );

  lateOf =
    option: given:
    let
      all = filter (path: !isGone path) (paths given);
      mountPoint = resolved.mountOf (lib.head all);
    in
    optional (all != [ ] && lib.all isLate all)
      "${option}: ${quoted (lib.head all)} is on fileSystems.${quoted mountPoint}, which is mounted after the activation reads it. Set fileSystems.${quoted mountPoint}.neededForBoot to true.";

  isUsed = tool: (tool.secrets or { }) != { };

  age = config.age or { };
  identities = optionals (isUsed age) (age.identityPaths or [ ]);

  sops = config.sops or { };
  sopsAge = sops.age or { };
  keyFile = optional (isUsed sops && sopsAge.keyFile or null != null) sopsAge.keyFile;
  sopsKeys = optionals (isUsed sops) (
    keyFile
    ++ sopsAge.sshKeyPaths or [ ]
    ++ (sops.gnupg or { }).sshKeyPaths or [ ]
    ++ optional ((sops.gnupg or { }).home or null != null) sops.gnupg.home
  );

  passwords = optionals (!passwordsAreKept) (
    mapAttrsToList (name: user: {
      option = "users.users.${name}.hashedPasswordFile";
      path = user.hashedPasswordFile or null;
    }) config.users.users
  );
  passwordFiles = filter (it: it.path != null) passwords;

  initrdSecrets = lib.unique (
    optionals (config.boot.initrd.network.ssh.enable or false) (
      map (path: {
        option = "boot.initrd.network.ssh.hostKeys";
        inherit path;
      }) (paths (config.boot.initrd.network.ssh.hostKeys or [ ]))
    )
    ++ mapAttrsToList (name: source: {
      option = "boot.initrd.secrets";
      path = lib.head (paths [ (if source == null then name else source) ]);
    }) (config.boot.initrd.secrets or { })
  );
  # NixOS puts the host keys among the secrets.
  ofInitrd = map (group: lib.head group) (lib.attrValues (lib.groupBy (it: it.path) initrdSecrets));

  lanzaboote = config.boot.lanzaboote or { };
in
{
  assertions =
    oneOf "age.identityPaths" "and agenix could decrypt nothing at the next boot" identities
    # sops-nix stops where this one is not there, whatever else is.
    ++ oneOf "sops.age.keyFile" "and sops-nix could decrypt nothing at the next boot" keyFile
    ++ optionals (keyFile == [ ]) (
      oneOf "sops" "and sops-nix could decrypt nothing at the next boot" sopsKeys
    )
    ++ concatMap (
      it: oneOf it.option "and the user would have no password at the next boot" [ it.path ]
    ) passwordFiles
    ++ concatMap (
      it:
      oneOf it.option "and the boot loader could not be installed again, since the initrd gets a copy then"
        [ it.path ]
    ) ofInitrd
    ++ optionals (lanzaboote.enable or false) (
      oneOf "boot.lanzaboote.pkiBundle" "and what is installed after that would not be signed with your keys"
        (optional (lanzaboote ? pkiBundle) lanzaboote.pkiBundle)
    );

  warnings =
    lateOf "age.identityPaths" identities
    ++ lateOf "sops" sopsKeys
    ++ concatMap (it: lateOf it.option [ it.path ]) passwordFiles;
}
