# The options that impermanence and preservation document, and what becomes of each here. A row has a store with
# the option in it, and either what is persisted and made, or a store that comes to the same without it.
# docs/nixos.md has the rows as tables, with `here` beside the option.
let
  reasons = import ../../nix/meaningless.nix;
  taken = option: here: store: persisted: made: {
    inherit
      option
      here
      store
      persisted
      made
      ;
  };
  # Nothing comes of it.
  unneeded = option: why: store: same: {
    inherit option store same;
    here = "not needed: ${why}";
  };
  d = path: "d \"${path}\" :0755 :root :root - -";
  home = "d \"/home/mia\" :700 :mia :users - -";
  ofMia = path: "d \"/home/mia/${path}\" :0755 :mia :users - -";
  dir = more: { directories = [ ({ directory = "/srv/d"; } // more) ]; };
  file = more: { files = [ ({ file = "/srv/f"; } // more) ]; };
  mia = paths: { users.mia = paths; };

  common = [
    (taken "directories" "`darlings.directories`" { directories = [ "/srv/d" ]; } [ "/srv/d" ] [ (d "/srv/d") ])
    (taken "directories.*.directory" "used as it is" (dir { }) [ "/srv/d" ] [ (d "/srv/d") ])
    (taken "directories.*.user" "used when it has to be created" (dir { user = "mia"; }) [ "/srv/d" ] [
      "d \"/srv/d\" :0755 :mia :root - -"
    ])
    (taken "directories.*.group" "used when it has to be created" (dir { group = "media"; }) [ "/srv/d" ] [
      "d \"/srv/d\" :0755 :root :media - -"
    ])
    (taken "directories.*.mode" "used when it has to be created; in octal or as `u=rwx,g=rx,o=`"
      (dir { mode = "u=rwx,g=rx,o="; })
      [ "/srv/d" ]
      [ "d \"/srv/d\" :0750 :root :root - -" ]
    )
    (taken "files.*.file" "used as it is" (file { }) [ "/srv/f" ] [ (d "/srv") ])
    (taken "users.<name>.directories" "`darlings.users.<name>.directories`; missing parents are created as the user's"
      (mia { directories = [ ".a/b" ]; })
      [ "/home/mia/.a/b" ]
      [
        home
        (ofMia ".a")
        (ofMia ".a/b")
      ]
    )
    (taken "users.<name>.files" "`darlings.users.<name>.files`" (mia { files = [ ".a/f" ]; }) [ "/home/mia/.a/f" ] [
      home
      (ofMia ".a")
    ])
    (unneeded "persistentStoragePath" reasons.store.persistentStoragePath (dir { } // { persistentStoragePath = "/other"; }) (
      dir { }
    ))
  ];
in
{
  impermanence = common ++ [
    (taken "files" "`darlings.files`; the parent is created, the file is not" { files = [ "/srv/f" ]; } [ "/srv/f" ] [ (d "/srv") ])
    (taken "enable" "honoured: a disabled store adds nothing" (dir { } // { enable = false; }) [ ] [ ])
    (unneeded "hideMounts" reasons.store.hideMounts (dir { } // { hideMounts = true; }) (dir { }))
    (unneeded "allowTrash" reasons.store.allowTrash (dir { } // { allowTrash = true; }) (dir { }))
    (unneeded "enableWarnings" reasons.store.enableWarnings (dir { } // { enableWarnings = false; }) (dir { }))
    (unneeded "directories.*.persistentStoragePath" reasons.entry.persistentStoragePath
      (dir { persistentStoragePath = "/other"; })
      (dir { })
    )
    (unneeded "directories.*.hideMount" reasons.entry.hideMount (dir { hideMount = true; }) (dir { }))
    (unneeded "directories.*.allowTrash" reasons.entry.allowTrash (dir { allowTrash = true; }) (dir { }))
    (unneeded "files.*.persistentStoragePath" reasons.entry.persistentStoragePath
      (file { persistentStoragePath = "/other"; })
      (file { })
    )
    (unneeded "files.*.method" reasons.entry.method (file { method = "symlink"; }) (file { }))
    (taken "files.*.parentDirectory.{user,group,mode}" "used when the directory has to be created"
      (file {
        parentDirectory = {
          user = "mia";
          group = "media";
          mode = "u=rwx,g=,o=";
        };
      })
      [ "/srv/f" ]
      [ "d \"/srv\" :0700 :mia :media - -" ]
    )
  ];

  preservation = common ++ [
    (taken "files" "`darlings.files`; missing ones are created empty only with `darlings.createFiles`" { files = [ "/srv/f" ]; } [ "/srv/f" ] [ (d "/srv") ])
    (unneeded "commonMountOptions" reasons.store.commonMountOptions (dir { } // { commonMountOptions = [ "x-gvfs-hide" ]; }) (
      dir { }
    ))
    (unneeded "directories.*.how" "${reasons.entry.how}; `adopt` replaces links into a store" (dir { how = "symlink"; }) (
      dir { }
    ))
    (taken "directories.*.how = \"_intermediate\"" "left out: the parents of a persisted path are created anyway"
      (dir { how = "_intermediate"; })
      [ ]
      [ ]
    )
    (unneeded "directories.*.inInitrd" reasons.entry.inInitrd (dir { inInitrd = true; }) (dir { }))
    (unneeded "directories.*.mountOptions" reasons.entry.mountOptions (dir { mountOptions = [ "noexec" ]; }) (dir { }))
    (unneeded "directories.*.createLinkTarget" "a missing directory is always created" (dir {
      how = "symlink";
      createLinkTarget = true;
    }) (dir { }))
    (unneeded "directories.*.configureParent" "the parent is always created, as `parent` says if it is given" (dir {
      configureParent = true;
    }) (dir { }))
    (taken "directories.*.parent.{user,group,mode}" "used when the directory has to be created; not with `configureParent = false`"
      (dir {
        configureParent = true;
        parent = {
          user = "mia";
          group = "media";
          mode = "0700";
        };
      })
      [ "/srv/d" ]
      [
        "d \"/srv\" :0700 :mia :media - -"
        (d "/srv/d")
      ]
    )
    (taken "files.*.{user,group,mode}" "used; a missing file is then created empty"
      (file {
        user = "mia";
        group = "media";
        mode = "0600";
      })
      [ "/srv/f" ]
      [ "f \"/srv/f\" :0600 :mia :media - -" ]
    )
    (unneeded "files.*.how" "${reasons.entry.how}; `adopt` replaces links into a store" (file { how = "symlink"; }) (
      file { }
    ))
    (taken "files.*.createLinkTarget" "honoured: a missing file is created empty; without it, the target of a link is not created"
      (file {
        how = "symlink";
        createLinkTarget = true;
      })
      [ "/srv/f" ]
      [ "f \"/srv/f\" :0644 :root :root - -" ]
    )
    (unneeded "files.*.inInitrd" reasons.entry.inInitrd (file { inInitrd = true; }) (file { }))
    (unneeded "files.*.mountOptions" reasons.entry.mountOptions (file { mountOptions = [ "ro" ]; }) (file { }))
    (unneeded "files.*.configureParent" "the parent is always created, as `parent` says if it is given" (file {
      configureParent = true;
    }) (file { }))
    (taken "files.*.parent.{user,group,mode}" "used when the directory has to be created; not with `configureParent = false`"
      (file { parent.mode = "0700"; })
      [ "/srv/f" ]
      [ "d \"/srv\" :0700 :root :root - -" ]
    )
    (taken "users.<name>.username" "used as it is"
      {
        users.work = {
          username = "mia";
          files = [ "f" ];
        };
      }
      [ "/home/mia/f" ]
      [ home ]
    )
    (taken "users.<name>.home" "used as it is"
      (mia {
        home = "/srv/mia";
        files = [ "f" ];
      })
      [ "/srv/mia/f" ]
      [ "d \"/srv/mia\" :700 :mia :users - -" ]
    )
    (unneeded "users.<name>.commonMountOptions" reasons.user.commonMountOptions
      (mia {
        files = [ "f" ];
        commonMountOptions = [ "x-gvfs-hide" ];
      })
      (mia { files = [ "f" ]; })
    )
  ];
}
