import { createChange } from '../db/change.ts'
import { NO_ID } from '../db/columns.ts'
import { gather } from '../db/gather.ts'
import { gatherGets, gatherInserts, gatherPages, type Place, pageSource } from '../db/gathered.ts'
import { type Pool, runner } from '../db/pool.ts'
import { arrayText, type Run } from '../db/statement.ts'
import { DatabaseUnavailable, isForeignKeyViolation, isUniqueViolation } from '../db/unavailable.ts'
import { type Idempotency, type Result, unchanged, type Versions } from '../resource.ts'
import { FIELDS, type Field, type ListQuery, type NewUser, type User, type UserPatch } from './schemas.ts'
import * as statements from './statements.ts'

/** A user and the version that its entity tag names: 1 at first, one more after each change. */
export type StoredUser = User & { version: number }
type NewRow = NewUser & Idempotency
/** What a user with this id is about to have. */
type Wanted = { id: number; username: string | null; email: string | null; key: string | null }
type Rival = Awaited<ReturnType<typeof statements.findRivals>>[number]

export type UserStore = ReturnType<typeof createUserStore>

/** A user as it was just after its creation: so its first answer can be given again. */
const asCreated = (id: number, { username, email }: NewUser, createdAt: string): StoredUser => {
  return { id, username, email, createdAt, updatedAt: createdAt, version: 1 }
}

/** The fields that rivals have; none if they came and went. */
const takenBy = (rivals: Rival[]) => FIELDS.filter((field) => rivals.some((rival) => rival[field]))

/** Columns of rows, as statements take them. */
const arraysOf = (rows: Omit<Wanted, 'id'>[]) => ({
  usernames: arrayText(rows.map((row) => row.username)),
  emails: arrayText(rows.map((row) => row.email)),
  keys: arrayText(rows.map((row) => row.key)),
})

/** Inserts with one of two statements. Of rows with the same username only the first is sent. */
const inserting = (statement: typeof statements.insertAll) => async (run: Run, rows: NewRow[]) => {
  const first = new Map(rows.toReversed().map((row) => [row.username, row]))
  // In one order everywhere, so that two statements that meet do not wait for each other.
  const sent = [...first.values()].sort((a, b) => (a.username < b.username ? -1 : 1))
  const inserted = await statement(run, { ...arraysOf(sent), hashes: arrayText(sent.map((row) => row.hash)) })
  const results = new Map(inserted.map((row) => [first.get(row.username), row]))
  return rows.map((row) => results.get(row))
}

/**
 * The users in PostgreSQL. Each function takes `until`, the deadline of its request as a time of performance.now().
 * Each throws DatabaseUnavailable when the database cannot be asked in time.
 */
export function createUserStore(db: Pool) {
  const get = gatherGets(db, statements.getUsers, statements.usersOf)
  const pages = gatherPages(db, statements.listPages, statements.usersOf)
  const inserts = [inserting(statements.insertAll), inserting(statements.insertOrSkip)] as const
  const insert = { requests: gatherInserts(db, ...inserts), streams: gatherInserts(db, ...inserts, 'streams') }
  const change = createChange(db, get)
  const findRivals = gather<Wanted, Rival[]>({
    maxInFlight: 1,
    maxWeight: 1000,
    async run(wanted, until) {
      const asked = { ...arraysOf(wanted), ids: arrayText(wanted.map(({ id }) => id)) }
      const rivals = await statements.findRivals(runner(db, 'read', until), asked)
      const byNumber = Map.groupBy(rivals, ({ n }) => n)
      return wanted.map((_, i) => byNumber.get(i + 1) ?? [])
    },
  })

  return {
    get,

    /** At most `limit` users with ids above `after`, by id: all, or the one with this username and this email. */
    async list({ username, email, ...place }: Pick<ListQuery, Field> & Place, until: number) {
      if (username === undefined && email === undefined) return pages.page(place, until)
      const find = statements.findBy[username === undefined ? 'email' : 'username']
      const run = runner(db, 'read', until, 'primary-first')
      const found = await find(run, { username: username ?? null, email: email ?? null })
      return found.filter(({ id }) => id > place.after)
    },

    /** At most `limit` users whose names begin with `prefix` and come after `after`, by name, whatever their case. */
    async listByName({ prefix, after, limit, fresh }: Place<string> & { prefix: string }, until: number) {
      const asked = { prefix: arrayText([prefix]), after: arrayText([after]), limit: arrayText([limit]) }
      const [page] = await statements.listPageByName(runner(db, 'read', until, pageSource(fresh)), asked)
      return page ? statements.usersOf(page) : []
    },

    stream: pages.stream,

    /**
     * Creates a user. With a key that created one before, from values with the same hash, it answers as it did then. The
     * key is remembered for as long as the user exists.
     * @param use those of streams let the others go first
     */
    async create(row: NewRow, until: number, use: keyof typeof insert = 'requests'): Promise<Result<StoredUser>> {
      // Again where the rival was gone when we looked; the deadline ends it.
      for (;;) {
        const inserted = await insert[use](row, until)
        if (inserted) return asCreated(inserted.id, row, inserted.createdAt)
        const rivals = await findRivals({ ...row, id: NO_ID }, until)
        const before = rivals.find(({ sameKey }) => sameKey)
        if (before?.hash === row.hash) return unchanged(asCreated(before.id, row, before.createdAt))
        if (before) return { outcome: 'key-reused' }
        const fields = takenBy(rivals)
        if (fields.length > 0) return { outcome: 'conflict', fields }
      }
    },

    /** Sets what `patch` names, if the user's version is one of `versions`. An empty patch changes nothing. */
    async update(id: number, patch: UserPatch, versions: Versions, until: number): Promise<Result<StoredUser>> {
      const { username = null, email = null } = patch
      if (username === null && email === null) return unchanged(await get(id, until), versions)
      try {
        return await change(id, versions, until, (run, versions) =>
          statements.updateUser(run, { id, username, email, versions }),
        )
      } catch (error) {
        if (!isUniqueViolation(error)) throw error
        const fields = takenBy(await findRivals({ id, username, email, key: null }, until))
        if (fields.length > 0) return { outcome: 'conflict', fields }
        throw new DatabaseUnavailable('another user came and went', 'refused')
      }
    },

    /** Deletes the user, if its version is one of `versions`. */
    async remove(id: number, versions: Versions, until: number): Promise<Result<Pick<StoredUser, 'id' | 'version'>>> {
      try {
        return await change(id, versions, until, (run, versions) => statements.removeUser(run, { id, versions }))
      } catch (error) {
        if (!isForeignKeyViolation(error)) throw error
        return { outcome: 'referenced', by: error.table_name ?? 'references' }
      }
    },
  }
}
