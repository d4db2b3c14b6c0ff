-- Rolls a dataset back to its blank snapshot and marks that with a user property, in one
-- transaction group. Run without `perform` it only looks. See rollback.rs.
--
-- Arguments:
--   dataset, blank           full names
--   snapshots                full names of the snapshots to destroy first (may be nil)
--   kept_bookmarks           full names of the bookmarks that are not newer than the blank
--   doomed_bookmarks         those that are destroyed before the program is performed
--   property, value          the mark
--   perform                  false: check and return
-- Returns { refused = reason, name = ..., errno = ... }, or what was done.

local args = ...
local dataset, blank = args.dataset, args.blank
local snapshots = args.snapshots or {}

local function refuse(reason, name, errno)
    return { refused = reason, name = name, errno = errno }
end

local function set(names)
    local members = {}
    for _, name in ipairs(names or {}) do
        members[name] = true
    end
    return members
end

-- Everything is checked before anything is done: errors undo nothing.

if not zfs.exists(dataset) then
    return refuse('missing', dataset)
end
if not zfs.exists(blank) then
    return refuse('missing', blank)
end

local doomed = set(snapshots)
local blank_txg = zfs.get_prop(blank, 'createtxg')
local newer = {}
for snapshot in zfs.list.snapshots(dataset) do
    -- ZFS takes no two snapshots of a dataset in one transaction group.
    if not doomed[snapshot] and zfs.get_prop(snapshot, 'createtxg') > blank_txg then
        newer[#newer + 1] = snapshot
    end
end
-- A program cannot tell when a bookmark is from, so that one which nobody has looked at counts.
local kept, leaving = set(args.kept_bookmarks), set(args.doomed_bookmarks)
for bookmark in zfs.list.bookmarks(dataset) do
    if not kept[bookmark] and (args.perform or not leaving[bookmark]) then
        newer[#newer + 1] = bookmark
    end
end
if #newer > 0 then
    return { refused = 'newer', name = blank, newer = newer }
end

local errno
for _, snapshot in ipairs(snapshots) do
    if zfs.exists(snapshot) then
        errno = zfs.check.destroy(snapshot)
        if errno ~= 0 then
            return refuse('destroy', snapshot, errno)
        end
    end
end

-- The check of the rollback looks at the newest snapshot of now, not at the blank.
local refquota = zfs.get_prop(dataset, 'refquota')
if refquota and refquota > 0 and zfs.get_prop(blank, 'referenced') > refquota then
    return refuse('rollback', dataset, EDQUOT)
end
errno = zfs.check.rollback(dataset)
-- EEXIST: bookmarks are newer, and they are on their way out.
if errno ~= 0 and (args.perform or errno ~= EEXIST) then
    return refuse('rollback', dataset, errno)
end
errno = zfs.check.set_prop(dataset, args.property, args.value)
if errno ~= 0 then
    return refuse('mark', dataset, errno)
end

local done = { destroyed = {}, marked = false, rolled_back = false }
if not args.perform then
    return done
end

local function stop(step, name, cause)
    done.step, done.name, done.errno = step, name, cause
    return done
end

for _, snapshot in ipairs(snapshots) do
    if zfs.exists(snapshot) then
        errno = zfs.sync.destroy(snapshot)
        if errno ~= 0 then
            return stop('destroy', snapshot, errno)
        end
        done.destroyed[#done.destroyed + 1] = snapshot
    end
end

-- ZFS rolls back to the newest snapshot, whichever that is.
local newest = zfs.get_prop(dataset, 'prevsnap')
if newest ~= blank then
    return stop('newest', newest or dataset, EEXIST)
end

-- The mark comes before the rollback, because it is the one of the two that can be taken back.
local before, source = zfs.get_prop(dataset, args.property)
errno = zfs.sync.set_prop(dataset, args.property, args.value)
if errno ~= 0 then
    return stop('mark', dataset, errno)
end
done.marked = true
errno = zfs.sync.rollback(dataset)
if errno ~= 0 then
    local undone
    if source == dataset then
        undone = zfs.sync.set_prop(dataset, args.property, before)
    else
        undone = zfs.sync.inherit(dataset, args.property)
    end
    done.marked = undone ~= 0
    return stop('rollback', dataset, errno)
end
done.rolled_back = true
return done
