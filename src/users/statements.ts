import { and, asc, gt, ne, or, type SQL, type SQLWrapper, sql } from 'drizzle-orm'
import { at, joined, joinedOrNull } from '../db/columnar.ts'
import { isAtVersion } from '../db/columns.ts'
import { builder, type Placeholders, prepare } from '../db/statement.ts'
import { type Field, USERNAME_MAX_LENGTH, type User } from './schemas.ts'
import { folded, users } from './table.ts'

const { id, username, email, createdAt, updatedAt, version } = users
const columns = { id, username, email, createdAt, updatedAt }

const same = (field: Field, value: SQLWrapper) => sql<boolean | null>`${folded(users[field])} = ${folded(value)}`

/** Columns of several users, joined. Most users were never updated: then the time of that is null. */
const joinedColumns = {
  ids: joined(id).as('ids'),
  usernames: joined(username).as('usernames'),
  emails: joined(email).as('emails'),
  created: joined(createdAt).as('created'),
  updated: joinedOrNull(updatedAt, sql`nullif(${updatedAt}, ${createdAt})`).as('updated'),
}

/** One row with the users that have these ids, in any order. */
export const getUsers = prepare(($: Placeholders<'ids'>) =>
  builder
    .select({ ...joinedColumns, versions: joined(version) })
    .from(users)
    .where(sql`${id} = any(${$('ids')}::bigint[])`),
)

/** The user who has this field, and the other unless that is null, if there is one. */
const find = (field: Field, other: Field) =>
  prepare(($: Placeholders<Field>) => {
    const wanted = and(same(field, $(field)), sql`(${$(other)}::text is null or ${same(other, $(other))})`)
    return builder.select(columns).from(users).where(wanted)
  })

export const findBy = { username: find('username', 'email'), email: find('email', 'username') }

/** Several pages at once, each one row: at most `limit` of the users that are `wanted`, by what they are ordered by. */
function pages(asked: SQL, wanted: SQL, order: SQL) {
  const following = builder.select(columns).from(users).where(wanted).orderBy(order)
  const page = builder.select(joinedColumns).from(sql`(${following} limit asked."limit") as users`).as('page')
  const { ids, usernames, emails, created, updated } = page
  return builder.select({ ids, usernames, emails, created, updated }).from(asked).crossJoinLateral(page).orderBy(sql`n`)
}

/** Pages of all users by id, after an id. */
export const listPages = prepare(($: Placeholders<'after' | 'limit'>) => {
  const asked = sql`unnest(${$('after')}::bigint[], ${$('limit')}::int[]) with ordinality as asked (after, "limit", n)`
  return pages(asked, gt(id, sql`asked.after`), asc(id))
})

/** Longer than any folded name: no character folds to more than three (Unicode 16, section 5.18.2). */
const FOLDED_LENGTH = 3 * USERNAME_MAX_LENGTH + 1

/**
 * A page of the users whose names begin with `prefix`, after a name, by name: folded, by code points, as the index has
 * them. The index serves no plan for `like` or `starts_with` that is made before the prefix is known, but it serves bounds.
 * Arrays keep PostgreSQL from a plan for one prefix: where few names begin with it, that would sort them.
 */
export const listPageByName = prepare(($: Placeholders<'prefix' | 'after' | 'limit'>) => {
  const asked = sql`unnest(${$('prefix')}::text[], ${$('after')}::text[], ${$('limit')}::int[])
    with ordinality as asked (prefix, after, "limit", n)`
  const [name, start] = [folded(username), folded(sql`asked.prefix`)]
  // Filled up with the last of all code points, it comes after whatever begins so.
  const end = sql`rpad(${start}, ${FOLDED_LENGTH}, U&'\\+10FFFF')`
  const wanted = sql`${name} >= ${start} and ${name} < ${end} and ${name} > ${folded(sql`asked.after`)}`
  return pages(asked, wanted, asc(name))
})

/** The users of one row of joined columns. */
export function usersOf({ ids, usernames, emails, created, updated }: JoinedUsers): User[] {
  if (!(ids && usernames && emails && created && updated)) return []
  const [names, addresses, createdAts, updatedAts] = [usernames(), emails(), created(), updated()]
  return ids().map((id, row) => ({
    id,
    username: at(names, row),
    email: at(addresses, row),
    createdAt: at(createdAts, row),
    updatedAt: at(updatedAts, row) ?? at(createdAts, row),
  }))
}
export type JoinedUsers = Awaited<ReturnType<typeof listPages>>[number]

/** Rows must come by username, so that two statements that meet take their keys in one order. */
const insert = (onConflict: SQL) =>
  prepare(($: Placeholders<'usernames' | 'emails' | 'keys' | 'hashes'>) => {
    const inserted = builder.$with('inserted', { id, username, createdAt }).as(sql`
      insert into ${users} (username, email, idempotency_key, idempotency_hash)
      select username, email, key, hash from unnest(
        ${$('usernames')}::text[], ${$('emails')}::text[], ${$('keys')}::text[], ${$('hashes')}::text[]
      ) as given (username, email, key, hash)
      ${onConflict}
      returning id, username, created_at`)
    return builder.with(inserted).select().from(inserted)
  })

/** One row that conflicts fails them all (SQLSTATE 23505). */
export const insertAll = insert(sql.empty())
/** Leaves out the rows that conflict. It costs PostgreSQL half as much again, for it looks for each key twice. */
export const insertOrSkip = insert(sql`on conflict do nothing`)

export const updateUser = prepare(($: Placeholders<'id' | 'versions' | Field>) =>
  builder
    .update(users)
    .set({
      username: sql`coalesce(${$('username')}, ${username})`,
      email: sql`coalesce(${$('email')}, ${email})`,
      version: sql`${version} + 1`,
      updatedAt: sql`now()`,
    })
    .where(isAtVersion(users, $))
    .returning({ ...columns, version }),
)

export const removeUser = prepare(($: Placeholders<'id' | 'versions'>) =>
  builder.delete(users).where(isAtVersion(users, $)).returning({ id, version }),
)

/**
 * Users who stand in the way of others, whose number is `n`, from 1: they have the username, email or Idempotency-Key that
 * those want.
 */
export const findRivals = prepare(($: Placeholders<'ids' | 'usernames' | 'emails' | 'keys'>) => {
  const wanted = sql`unnest(
    ${$('ids')}::bigint[], ${$('usernames')}::text[], ${$('emails')}::text[], ${$('keys')}::text[]
  ) with ordinality as wanted (id, username, email, key, n)`
  const username = same('username', sql`wanted.username`)
  const email = same('email', sql`wanted.email`)
  const sameKey = sql<boolean | null>`${users.idempotencyKey} = wanted.key`
  return builder
    .select({ n: sql<number>`n::int`, username, email, sameKey, hash: users.idempotencyHash, id, createdAt })
    .from(wanted)
    .innerJoin(users, and(ne(id, sql`wanted.id`), or(username, email, sameKey)))
})
