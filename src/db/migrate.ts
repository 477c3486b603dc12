import { setTimeout as sleep } from 'node:timers/promises'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate as applyMigrations } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { type Address, driverOptions } from './address.ts'
import { scramVerifier } from './scram.ts'
import { unavailable } from './unavailable.ts'

export type MigrateOptions = {
  /** Who owns the tables. */
  address: Address
  /** Folder of the migrations that drizzle-kit generated. */
  folder: string
  /** The role that the API logs in as: created when missing, given this password, granted its rights. */
  api: { user: string; password: string } | undefined
  /** How long to wait for a database that does not answer yet, for another process that migrates, and for locks. */
  waitMs: number
}

/** A reason that a person has to see to: trying again does not help. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError'
}

/** The key of the advisory lock that migrations hold; any number that nothing else in the database uses. */
const LOCK_KEY = 7_203_411
const RETRY_MS = 250
/** While a migration waits for a table, everybody else who needs it waits behind it. */
const LOCK_TIMEOUT_MS = 1000
/** SQLSTATE (PostgreSQL, appendix A). */
const LOCK_NOT_AVAILABLE = '55P03'

/**
 * Brings the database to this release: applies what is missing of `folder` in one transaction, under an advisory
 * lock, so that any number of processes may start at once; then creates and grants the API's role.
 * @returns how many migrations were applied
 * @throws MigrationError when the database is newer than `folder`, a migration fails, or `waitMs` are over; nothing is
 * half-applied
 */
export async function migrate({ address, folder, api, waitMs }: MigrateOptions): Promise<number> {
  const until = performance.now() + waitMs
  const sql = await connect(address, until)
  try {
    await retryUntil(until, 'Another process is still migrating the database.', async () => {
      const [row] = await sql`select pg_try_advisory_lock(${LOCK_KEY}) as locked`
      return row?.locked
    })
    const known = readMigrationFiles({ migrationsFolder: folder }).map(({ folderMillis }) => folderMillis)
    const before = await appliedTimes(sql)
    const [newest, newestBefore] = [Math.max(0, ...known), Math.max(0, ...before)]
    if (newestBefore > newest) {
      throw new MigrationError(
        'The database has migrations that this release does not know: it is newer than the code. Deploy that release or a later one.',
      )
    }
    const missing = known.filter((time) => !before.includes(time))
    if (missing.some((time) => time < newestBefore)) {
      throw new MigrationError(
        'A migration is older than one that the database has had, and would be left out: remove it and generate it anew.',
      )
    }
    await retryUntil(until, 'A long transaction holds a table that a migration changes.', () => apply(sql, folder))
    if (api) await grantApiRole(sql, api)
    return missing.length
  } finally {
    await sql.end({ timeout: 5 })
  }
}

/** Tries until `work` gives true; past `until` once more and no longer. @throws MigrationError that says `why` */
async function retryUntil(until: number, why: string, work: () => Promise<boolean>) {
  while (!(await work())) {
    if (performance.now() > until) throw new MigrationError(`${why} Nothing was changed: try again later.`)
    await sleep(RETRY_MS)
  }
}

/** Applies what is missing; false when it waited too long for a lock. */
async function apply(sql: postgres.Sql, folder: string): Promise<boolean> {
  try {
    await applyMigrations(drizzle(sql), { migrationsFolder: folder })
    return true
  } catch (cause) {
    const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
    if (!(reason instanceof postgres.PostgresError)) throw cause
    if (reason.code === LOCK_NOT_AVAILABLE) return false
    throw new MigrationError(`A migration failed and nothing of it was kept: ${reason.message}`, { cause })
  }
}

/** Connects, and waits until `until` for a database that is still starting. */
async function connect(address: Address, until: number): Promise<postgres.Sql> {
  const sql = postgres({
    ...driverOptions(address),
    max: 1,
    connect_timeout: 5,
    max_lifetime: null,
    fetch_types: false,
    onnotice: () => {},
    connection: { application_name: 'users-api migrate', lock_timeout: LOCK_TIMEOUT_MS },
  } as postgres.Options<Record<string, postgres.PostgresType>>)
  for (;;) {
    try {
      await sql`select 1`
      return sql
    } catch (error) {
      if (error instanceof postgres.PostgresError && error.code === '28P01') {
        throw new MigrationError(
          `The database refuses the password of role "${address.user}". A volume keeps the password that it was made with: if the Secret was lost or changed since, see "A lost Secret" in the README.`,
          { cause: error },
        )
      }
      if (unavailable(error) === undefined || performance.now() > until) {
        await sql.end({ timeout: 0 })
        const reason = error instanceof Error ? error.message || String(error) : String(error)
        throw new MigrationError(`The database at ${address.host}:${address.port} cannot be used: ${reason}`, {
          cause: error,
        })
      }
      await sleep(RETRY_MS)
    }
  }
}

/** When the migrations were generated that the database has had: drizzle keeps that in milliseconds. */
async function appliedTimes(sql: postgres.Sql): Promise<number[]> {
  const [table] = await sql`select to_regclass('drizzle.__drizzle_migrations') is not null as exists`
  if (!table?.exists) return []
  return (await sql`select created_at from drizzle.__drizzle_migrations`).map(({ created_at }) => Number(created_at))
}

/** The API may use the rows of the tables in `public`, and change nothing else: neither tables nor migrations. */
async function grantApiRole(sql: postgres.Sql, { user, password }: { user: string; password: string }) {
  await sql.begin(async (transaction) => {
    // postgres.js would take a dot in a name for a schema's.
    const role = transaction.unsafe(`"${user.replaceAll('"', '""')}"`)
    const [found] = await transaction`select 1 from pg_roles where rolname = ${user}`
    if (!found) await transaction`create role ${role} login`
    await transaction`alter role ${role} login password ${transaction.unsafe(`'${scramVerifier(password)}'`)}`
    await transaction`grant usage on schema public to ${role}`
    await transaction`grant select, insert, update, delete on all tables in schema public to ${role}`
  })
}
