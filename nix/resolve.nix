# From what a configuration says, and what the system says anyway, to what is written. Pure.
{ config, lib }:
let
  inherit (lib)
    concatMap
    filter
    mapAttrs
    mapAttrsToList
    optional
    optionalAttrs
    ;

  functions = import ./lib.nix { inherit lib; };
  inherit (functions)
    below
    devicePath
    escapePath
    holder
    isBelow
    mountOption
    normalize
    withoutNulls
    ;

  cfg = config.darlings;

  # The first that is given.
  orElse = value: other: if value == null then other else value;

  # --- volumes -----------------------------------------------------------------

  fileSystems = lib.mapAttrs' (
    mountPoint: fileSystem: lib.nameValuePair (normalize mountPoint) fileSystem
  ) config.fileSystems;

  kinds = [
    "zfs"
    "btrfs"
    "dir"
  ];

  # Erased by a reboot without our help, or not ours to erase.
  notOnDisk = [
    "tmpfs"
    "ramfs"
    "overlay"
    "squashfs"
    "erofs"
    "nfs"
    "nfs4"
    "9p"
    "virtiofs"
  ];

  # Mounts of which nobody says what they are. A bind shows a directory that may lie anywhere, also in what
  # is kept, and would be erased there.
  isUnclear =
    fileSystem:
    lib.elem (fileSystem.fsType or null) [
      "auto"
      "none"
    ]
    || lib.any (option: option == "bind" || option == "rbind") (
      concatMap (lib.splitString ",") (fileSystem.options or [ ])
    );

  kindOf =
    volume: fileSystem:
    let
      given = filter (kind: volume.${kind} != null) kinds;
      # A mount that only the module speaks of has no device.
      fsType = if (fileSystem.device or null) == null then null else fileSystem.fsType or null;
    in
    if lib.length given == 1 then
      lib.head given
    else if given != [ ] || fsType == null || lib.elem fsType notOnDisk || isUnclear fileSystem then
      null
    else if fsType == "zfs" || fsType == "btrfs" then
      fsType
    else
      "dir";

  sourceOf = {
    zfs =
      volume: _: fileSystem:
      let
        given = orElse volume.zfs { };
      in
      {
        dataset = orElse (given.dataset or null) (fileSystem.device or null);
        blank = orElse (given.blank or null) (if volume.strategy == "rollback" then "blank" else "empty");
      }
      // optionalAttrs ((given.newerSnapshots or "refuse") != "refuse") {
        newer_snapshots = given.newerSnapshots;
      };

    btrfs =
      volume: _: fileSystem:
      let
        given = orElse volume.btrfs { };
        device = orElse (given.device or null) (fileSystem.device or null);
      in
      {
        device = if device == null then null else devicePath device;
        subvolume = orElse (given.subvolume or null) (mountOption "subvol" (fileSystem.options or [ ]));
        blank = orElse (given.blank or null) "empty";
      }
      // withoutNulls { generations = given.generations or null; };

    dir =
      volume: mountPoint: _:
      let
        given = orElse volume.dir { };
      in
      {
        path = orElse (given.path or null) (normalize "/sysroot/${mountPoint}");
        blank = orElse (given.blank or null) "empty";
      };
  };

  volumes = mapAttrsToList (
    name: volume:
    let
      mountPoint = normalize name;
      fileSystem = fileSystems.${mountPoint} or { };
      kind = kindOf volume fileSystem;
    in
    {
      inherit name mountPoint kind;
      isInMemory = lib.elem (fileSystem.fsType or null) [
        "ramfs"
        "tmpfs"
      ];
      unclear = fileSystem.device or null != null && isUnclear fileSystem;
      inherit (volume) strategy;
      given = filter (it: volume.${it} != null) kinds;
      options = fileSystem.options or [ ];
      source = if kind == null then { } else sourceOf.${kind} volume mountPoint fileSystem;
      keep = withoutNulls {
        inherit (volume.keep) generations days;
        min_free = volume.keep.minFree;
      };
    }
  ) cfg.volumes;

  ofKind = kind: filter (volume: volume.kind == kind) volumes;

  mountPoints = map (volume: volume.mountPoint) volumes;

  volumeTable =
    volume:
    {
      mount_point = volume.mountPoint;
      ${if volume.kind == null then "zfs" else volume.kind} = withoutNulls volume.source;
    }
    # It is the default, and the only one of a directory.
    // optionalAttrs (volume.strategy != "carry") { inherit (volume) strategy; }
    // optionalAttrs (volume.keep != { }) { inherit (volume) keep; };

  # --- what is kept ------------------------------------------------------------

  rootOwns = {
    user = "root";
    group = "root";
    home = null;
    place = normalize;
  };

  # One entry of a list, with everything that it leaves out.
  entryFrom =
    owner: option: kind: given:
    let
      parent = orElse given.parentDirectory given.parent;
      path = owner.place given.${kind};
    in
    {
      inherit option kind path;
      inherit (owner) home;
      text = given.${kind};
      user = orElse given.user owner.user;
      group = orElse given.group owner.group;
      mode = orElse given.mode (
        if path == owner.home then
          owner.homeMode
        else if kind == "file" then
          "0644"
        else
          "0755"
      );
      create = orElse given.create (
        kind == "directory"
        || cfg.createFiles
        || given.user != null
        || given.group != null
        || given.mode != null
      );
      inherit owner;
      inherit (given) exclude;
      parent =
        if parent == null then
          null
        else
          {
            user = orElse parent.user owner.user;
            group = orElse parent.group owner.group;
            mode = orElse parent.mode "0755";
          };
    };

  entriesFrom =
    owner: option: paths:
    map (entryFrom owner "${option}.directories" "directory") paths.directories
    ++ map (entryFrom owner "${option}.files" "file") paths.files;

  # A user who is not declared is an error that is told elsewhere; until then something must be said.
  ownerFrom =
    paths:
    let
      user = config.users.users.${paths.username} or { };
      home = normalize (orElse paths.home (user.home or "/home/${paths.username}"));
    in
    {
      inherit home;
      place = below home;
      user = paths.username;
      group = user.group or "users";
      homeMode = user.homeMode or "700";
    };

  # What users declare in their own configurations, where Home Manager runs as a module of NixOS. There a path
  # may be the whole one, as those of `xdg` are.
  homes = lib.filterAttrs (_: home: home ? darlings) ((config.home-manager or { }).users or { });

  ofHome =
    name: home:
    let
      owner = ownerFrom {
        username = home.home.username or name;
        home = home.home.homeDirectory or null;
      };
    in
    entriesFrom (
      owner // { place = functions.inHome owner.home; }
    ) "home-manager.users.${name}.darlings" home.darlings;

  # A service makes its own state. Where its owner named the path, or one above it, that counts.
  presetEntries =
    let
      untouched = {
        create = false;
        exclude = [ ];
        group = null;
        mode = null;
        parent = null;
        parentDirectory = null;
        user = null;
      };
      paths = lib.unique (concatMap (preset: preset.paths) (lib.attrValues cfg.presets.applied));
      isWanted =
        entry:
        isOnVolume entry
        && !isHidden entry
        && !lib.any (named: functions.isAtOrBelow named.path entry.path) namedEntries;
    in
    filter isWanted (
      map (path: entryFrom rootOwns "darlings.presets" "directory" (untouched // { directory = path; })) paths
    );

  entries = namedEntries ++ presetEntries;

  namedEntries =
    entriesFrom rootOwns "darlings" cfg
    ++ lib.concatLists (
      mapAttrsToList (
        name: paths: entriesFrom (ownerFrom paths) "darlings.users.${name}" paths
      ) cfg.users
    )
    ++ lib.concatLists (mapAttrsToList ofHome homes);

  # What stage 1 mounts in the root by units of its own, without a fileSystems.
  stage1Mounts = map (mount: normalize (lib.removePrefix "/sysroot" mount.where)) (
    filter (mount: lib.hasPrefix "/sysroot/" mount.where && mount.enable or true) (
      config.boot.initrd.systemd.mounts or [ ]
    )
  );

  # Which option mounts something there.
  mountedBy =
    mountPoint:
    if fileSystems ? ${mountPoint} then
      "fileSystems.\"${mountPoint}\""
    else
      "the mount of \"${mountPoint}\" in boot.initrd.systemd.mounts";

  # Where an entry lies: in the innermost mount, whether that is reset or not.
  mountOf = holder (lib.unique (lib.attrNames fileSystems ++ mountPoints ++ stage1Mounts));
  volumeOf = holder mountPoints;

  isOnVolume = entry: volumeOf entry.path != null;
  isWhole = entry: entry.path == "/" || lib.elem entry.path mountPoints;
  isHidden = entry: isOnVolume entry && mountOf entry.path != volumeOf entry.path;

  # What the configuration for the binary names.
  kept = filter (entry: isOnVolume entry && !isHidden entry && !isWhole entry) entries;

  persist = map (
    entry: { inherit (entry) path; } // optionalAttrs (entry.exclude != [ ]) { inherit (entry) exclude; }
  ) (lib.sort (one: other: one.path < other.path) kept);

  # --- stage 1 -----------------------------------------------------------------

  mountUnit = mountPoint: "${escapePath "/sysroot/${mountPoint}"}.mount";

  pools = lib.unique (
    map (volume: lib.head (lib.splitString "/" volume.source.dataset)) (
      filter (volume: volume.source.dataset != null) (ofKind "zfs")
    )
  );

  devices = lib.unique (
    filter (device: device != null) (map (volume: volume.source.device) (ofKind "btrfs"))
  );

  # The LUKS volumes of which a device is one.
  cryptsetup = concatMap (
    device:
    let
      name = lib.removePrefix "/dev/mapper/" device;
    in
    optional (config.boot.initrd.luks.devices ? ${name} && name != device)
      "systemd-cryptsetup@${escapePath name}.service"
  ) devices;

  # What NixOS mounts in stage 1 whatever neededForBoot says: its utils.pathsNeededForBoot.
  alwaysNeededForBoot = [
    "/nix"
    "/nix/store"
    "/var"
    "/var/log"
    "/var/lib"
    "/var/lib/nixos"
    "/etc"
    "/usr"
  ];

  inStage1 =
    mountPoint:
    (fileSystems.${mountPoint}.neededForBoot or false) || lib.elem mountPoint alwaysNeededForBoot;

  # Whether what is there is mounted when stage 1 ends. The root always is.
  isInStage1 =
    mountPoint: mountPoint == null || mountPoint == "/" || lib.elem mountPoint stage1Mounts || inStage1 mountPoint;

  # And without a fileSystems: /run is bound into every root, an overlay of /etc mounted there, and
  # whatever else is a unit of its own.
  ownMounts = [
    "/etc"
    "/run"
  ]
  ++ stage1Mounts;

  isInDir = mountPoint: lib.any (volume: isBelow volume.mountPoint mountPoint) (ofKind "dir");

  # The mounts of stage 1 that lie in a directory that is reset: only once it was, since a reset does not
  # touch a directory in which something is mounted. The service writes there, for an overlay of /etc.
  insideDirs =
    map mountUnit (
      lib.unique (filter isInDir (filter inStage1 (lib.attrNames fileSystems) ++ ownMounts))
    )
    ++ optional (isInDir "/etc") "rw-etc.service";

  resetMounts = map mountUnit mountPoints;

  # What the shipped units leave to each machine.
  ordering =
    if ofKind "dir" != [ ] then
      {
        wants = [ ];
        requires = resetMounts ++ cfg.initrd.requires;
        after = [ ];
        before = insideDirs;
        requiredBy = [ "initrd-root-fs.target" ];
      }
    else
      {
        # Wanted, not required: one disk that is dead must not take the reset of the others along, and the
        # mounts that require it. The reset finds by itself what is not there, and onFailure counts.
        wants =
          map (pool: "zfs-import-${pool}.service") pools
          ++ map (device: "${escapePath device}.device") devices;
        requires = cfg.initrd.requires;
        after = cryptsetup;
        before = resetMounts;
        requiredBy = resetMounts;
      };
in
{
  inherit
    entries
    fileSystems
    functions
    isHidden
    isInStage1
    isOnVolume
    isWhole
    kept
    mountOf
    mountPoints
    mountedBy
    ofKind
    ordering
    volumeOf
    volumes
    ;

  toml = functions.toToml {
    inherit (cfg) onFailure;
    volumes = map volumeTable volumes;
    inherit persist;
  };
}
