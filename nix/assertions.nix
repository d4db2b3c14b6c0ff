# What is wrong with a configuration (assertions), and what is probably not meant (warnings).
{
  config,
  lib,
  options,
  resolved,
}:
let
  inherit (lib)
    concatMap
    filter
    filterAttrs
    mapAttrsToList
    optional
    optionals
    ;
  inherit (resolved)
    entries
    fileSystems
    functions
    kept
    mountOf
    mountPoints
    ofKind
    volumes
    ;
  inherit (functions)
    hasDotDot
    isAbsolute
    isAtOrBelow
    isBelow
    isMode
    mountOption
    normalize
    ;

  cfg = config.darlings;
  reasons = import ./meaningless.nix;

  wrong = message: {
    assertion = false;
    inherit message;
  };

  quoted = text: "\"${text}\"";
  listed = lib.concatMapStringsSep " and " quoted;

  # Whatever stands in the way of one place being declared twice, and how often.
  twice =
    key: things:
    filter (group: lib.length group > 1) (lib.attrValues (lib.groupBy key things));

  # As the reset itself decides: by the longest path that is declared or excluded.
  declared = map (entry: entry.path) kept;
  excluded = concatMap (entry: map (functions.below entry.path) entry.exclude) kept;
  isKept = path: lib.elem (functions.holder (declared ++ excluded) path) declared;

  others = import ./others.nix { inherit config functions lib; };

  # On a volume that is reset, the innermost mount counts, and neither kept nor brought from a store.
  isLost = path: lib.elem (mountOf path) mountPoints && !isKept path;
  erased = path: isLost path && !others.isBrought path;

  # One message for each volume that has some of these places, and would erase them.
  wouldErase =
    places: why:
    mapAttrsToList (
      mountPoint: lost: wrong "darlings.volumes.${quoted mountPoint}: ${listed lost} would be erased, ${why}."
    ) (lib.groupBy mountOf (filter erased places));

  # --- paths -------------------------------------------------------------------

  isReserved =
    entry:
    resolved.isOnVolume entry
    && isAtOrBelow (functions.below (resolved.volumeOf entry.path) ".darlings") entry.path;

  aboutPaths = concatMap (
    entry:
    let
      of = "${entry.option}: ${quoted entry.text}";
    in
    optional (entry.text == "") (wrong "${entry.option}: an entry lacks its `${entry.kind}`.")
    ++ optional (entry.home == null && entry.text != "" && !isAbsolute entry.text) (
      wrong "${of} is relative; write the absolute path."
    )
    ++ optional (hasDotDot entry.text || lib.any hasDotDot entry.exclude) (
      wrong "${of}: `..` is not allowed in paths; write the path itself."
    )
    ++ optional (entry.text != "" && resolved.isWhole entry) (
      wrong "${of} is the mount point of a volume that is reset, and would keep all of it; do not reset the volume instead (darlings.volumes)."
    )
    ++ optional (entry.home != null && !isAtOrBelow entry.home entry.path) (
      wrong "${of} is outside the home ${quoted entry.home}; a user persists only what is in it."
    )
    ++ optional (isReserved entry) (wrong "${of} lies in `.darlings`, which is the tool's own.")
    ++ concatMap (
      path:
      let
        of = "${entry.option}.*.exclude: ${quoted path}";
      in
      optional (isAbsolute path) (wrong "${of} is absolute; give it relative to the persisted path.")
      ++ optional (!isAbsolute path && normalize path == "/") (
        wrong "${of} names the whole of ${quoted entry.path}; declare what to keep instead."
      )
    ) entry.exclude
    ++ optional (!resolved.isOnVolume entry) (
      wrong "${of} is on no volume that is reset; remove it, or add the volume that holds it to darlings.volumes."
    )
    ++ optional (!isMode entry.mode) (
      wrong "${of}: ${quoted entry.mode} is no mode for something that is made; write it in octal (\"0750\") or as \"u=rwx,g=rx,o=\"."
    )
    ++ optional (entry.parent != null && !isMode entry.parent.mode) (
      wrong "${of}: ${quoted entry.parent.mode} is no mode for something that is made; write it in octal (\"0750\") or as \"u=rwx,g=rx,o=\"."
    )
  ) entries;

  duplicates = map (
    group:
    wrong "${listed (lib.unique (map (entry: entry.option) group))}: ${quoted (lib.head group).path} is declared ${toString (lib.length group)} times; keep one of them."
  ) (twice (entry: entry.path) entries);

  # What is excluded, at the places that it names.
  exclusions = concatMap (
    entry:
    map (path: {
      path = functions.below entry.path path;
      option = "${entry.option}.*.exclude";
    }) (filter (path: !isAbsolute path && normalize path != "/") entry.exclude)
  ) entries;

  excludedTwice = map (
    group:
    wrong "${listed (lib.unique (map (it: it.option) group))}: ${quoted (lib.head group).path} is declared or excluded twice; keep one of them."
  ) (
    filter (lib.any (it: !(it ? kind))) (twice (it: it.path) (entries ++ exclusions))
  );

  undeclared = mapAttrsToList (
    name: user:
    wrong "darlings.users.${name}${lib.optionalString (user.username != name) ".username"}: there is no such user in users.users; declare one, or correct the name."
  ) (filterAttrs (_: user: !(config.users.users ? ${user.username})) cfg.users);

  # --- volumes -----------------------------------------------------------------

  aboutVolume =
    volume:
    let
      of = "darlings.volumes.${quoted volume.name}";
      inherit (volume) source;
      lacks = key: volume.kind != null && (source.${key} or null) == null;
      needs =
        key: from:
        optional (lacks key) (
          wrong "${of}.${volume.kind}.${key}: fileSystems.${quoted volume.mountPoint} does not say it (${from}); write it here."
        );
    in
    optional (!isAbsolute volume.name || hasDotDot volume.name) (
      wrong "${of}: a mount point is an absolute path without `..`."
    )
    ++ optional (isAbsolute volume.name && volume.name != volume.mountPoint) (
      wrong "${of}: write the mount point as fileSystems does, ${quoted volume.mountPoint}."
    )
    ++ optional (lib.length volume.given > 1) (
      wrong "${of}: ${listed volume.given} are given; a volume is one of them."
    )
    ++ optional (volume.kind == null && volume.given == [ ] && volume.unclear) (
      wrong "${of}: fileSystems.${quoted volume.mountPoint} is a bind mount, or does not say its file system; write its fsType there, or what is reset here: zfs, btrfs, or dir, which erases the directory whatever it is."
    )
    ++ optional (volume.kind == null && volume.given == [ ] && volume.isInMemory) (
      wrong "${of}: fileSystems.${quoted volume.mountPoint} is in memory, which a reboot empties without darlings; remove the volume. docs/tmpfs-root.md says what darlings can do for such a machine, and how its root moves to a disk."
    )
    ++ optional (volume.kind == null && volume.given == [ ] && !volume.unclear && !volume.isInMemory) (
      wrong "${of}: fileSystems.${quoted volume.mountPoint} is no file system on a disk, or is not there; reset what holds the files, or remove the volume."
    )
    ++ optionals (volume.kind == "zfs") (
      needs "dataset" "device"
      ++ optional (source.dataset != null && !lib.hasInfix "/" source.dataset) (
        wrong "${of}.zfs.dataset: a pool's own top dataset cannot be reset; put the root in a dataset below it."
      )
      ++ optional (volume.strategy == "rollback" && volume.keep != { }) (
        wrong "${of}.keep: `rollback` on ZFS keeps no previous state, since a rollback destroys later snapshots; remove it, or write strategy = \"carry\"."
      )
      ++ optional (volume.strategy == "rollback" && source.blank == "empty") (
        wrong "${of}.zfs.blank: `rollback` on ZFS needs a snapshot to go back to; name one, or write strategy = \"carry\"."
      )
      ++ optional (!(cfg.package.withZfs or true)) (
        wrong "darlings.package: it was built without ZFS, and ${quoted volume.name} is a ZFS dataset; build it with `withZfs = true`."
      )
    )
    ++ optionals (volume.kind == "btrfs") (
      needs "device" "device"
      ++ concatMap
        (
          key:
          let
            path = source.${key} or null;
          in
          optional (path != null && hasDotDot path) (
            wrong "${of}.btrfs.${key}: ${quoted path} holds `..`; write the path it stands for."
          )
          ++ optional (path != null && normalize path == "/") (
            wrong "${of}.btrfs.${key}: ${quoted path} is the top level of the filesystem, which nothing can take the place of; name what lies below it (a root that is the top level is moved first: `btrfs subvolume snapshot / /@`, and boot that)."
          )
        )
        [
          "subvolume"
          "blank"
          "generations"
        ]
      ++ (
        if mountOption "subvolid" volume.options != null then
          [
            (wrong "fileSystems.${quoted volume.mountPoint}.options: `subvolid=` mounts the old tree after a reset, whatever has its name; write `subvol=`.")
          ]
        else
          needs "subvolume" "subvol= in options"
      )
    )
    ++ optional (volume.kind == "dir" && volume.strategy == "rollback") (
      wrong "${of}.strategy: a plain directory has nothing to roll back to; write \"carry\"."
    );

  # What makes two volumes one and the same.
  identity =
    volume:
    if volume.kind == "zfs" then
      "the dataset ${quoted (toString volume.source.dataset)}"
    else if volume.kind == "btrfs" then
      "the subvolume ${quoted (normalize (toString volume.source.subvolume))} of ${toString volume.source.device}"
    else if volume.kind == "dir" then
      "the directory ${quoted (normalize volume.source.path)}"
    else
      volume.name;

  sameVolumes = map (
    group:
    wrong "darlings.volumes: ${listed (map (volume: volume.name) group)} are all ${identity (lib.head group)}; each may be reset once."
  ) (twice identity volumes);

  dirs = ofKind "dir";
  mixed = optional (dirs != [ ] && lib.length dirs != lib.length volumes) (
    wrong "darlings.volumes: ${listed (map (volume: volume.name) dirs)} are plain directories, which are reset once they are mounted, and the others before that; use one kind or the other."
  );
  nested = concatMap (
    volume:
    map
      (other: wrong "darlings.volumes: ${quoted other.name} is mounted in ${quoted volume.name}, and plain directories in each other cannot be reset; reset one of them.")
      (filter (other: isBelow volume.mountPoint other.mountPoint) dirs)
  ) dirs;

  # --- the system --------------------------------------------------------------

  system = import ./system.nix {
    inherit
      config
      erased
      lib
      listed
      quoted
      resolved
      wouldErase
      wrong
      ;
  };

  # --- warnings ----------------------------------------------------------------

  given = names: of: lib.attrNames (filterAttrs (name: value: names ? ${name} && value != null) of);

  # Each option once, however many entries have it.
  meaningless =
    let
      ofPaths =
        option: paths:
        concatMap
          (
            list:
            concatMap (
              entry:
              map (name: {
                option = "${option}.${list}.*.${name}";
                why = reasons.entry.${name};
              }) (given reasons.entry entry ++ given reasons.entry (if entry.parentDirectory == null then { } else entry.parentDirectory))
            ) paths.${list}
          )
          [
            "directories"
            "files"
          ];
      ofSet =
        names: option: of:
        map (name: {
          option = "${option}.${name}";
          why = names.${name};
        }) (given names of);
      all =
        ofSet reasons.store "darlings" cfg
        ++ ofPaths "darlings" cfg
        ++ lib.concatLists (
          mapAttrsToList (
            name: user: ofSet reasons.user "darlings.users.${name}" user ++ ofPaths "darlings.users.${name}" user
          ) cfg.users
        );
    in
    map (it: "${it.option} does nothing here: ${it.why}.") (lib.unique all);

  # An entry in another one that is not there because the outer one excludes its place.
  overlapping = concatMap (
    outer:
    map
      (
        inner:
        "${inner.option}: ${quoted inner.path} lies in ${quoted outer.path} of ${outer.option}, which keeps it already; remove one of them."
      )
      (
        filter (
          inner:
          isBelow outer.path inner.path
          && !lib.any (excluded: isAtOrBelow (functions.below outer.path excluded) inner.path) outer.exclude
        ) kept
      )
  ) kept;

  hidden = map (
    entry:
    "${entry.option}: ${quoted entry.path} is on ${resolved.mountedBy (mountOf entry.path)}, which is not reset, so that there is nothing to keep; remove it."
  ) (filter (entry: resolved.isHidden entry && !others.isBrought entry.path) entries);

  # Where another tool's lists are still there, its mounts are what programs see.
  beside = concatMap (
    tool:
    let
      both = filter (others.brings tool) (map (entry: entry.path) entries);
      more = lib.length both - 1;
    in
    optional (both != [ ])
      "${tool.option}: ${tool.name} still puts its own ${quoted (lib.head both)}${
        if more == 0 then "" else " and ${toString more} more"
      } over what darlings persists there. Bring the content over with `darlings adopt`, then remove these paths from ${tool.option}."
  ) others.tools;

  erasedStores = concatMap (
    tool:
    map (
      store:
      wrong "${tool.option}.${quoted store}: the store of ${tool.name} would be erased, with all that is in it; give it a file system of its own, or persist it until `darlings adopt` has brought its content over."
    ) (filter isLost tool.stores)
  ) others.tools;
in
{
  assertions =
    system.assertions
    ++ concatMap aboutVolume volumes
    ++ sameVolumes
    ++ mixed
    ++ nested
    ++ undeclared
    ++ erasedStores
    ++ aboutPaths
    ++ duplicates
    ++ excludedTwice;

  warnings = meaningless ++ overlapping ++ hidden ++ beside ++ system.warnings;
}
