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
  /** How long to wait for a database that does not answer yet. */
  waitMs: number
}

/** A reason that a person has to see to: trying again does not help. */
export class MigrationError extends Error {
  override readonly name = 'MigrationError'
}

/** The key of the advisory lock that migrations hold; any number that nothing else in the database uses. */
const LOCK_KEY = 7_203_411
const RETRY_MS = 250

/**
 * Brings the database to this release: applies what is missing of `folder` in one transaction, under an advisory
 * lock, so that any number of processes may start at once; then creates and grants the API's role.
 * @returns how many migrations were applied
 * @throws MigrationError when the database is newer than `folder` or a migration fails; nothing is half-applied
 */
export async function migrate({ address, folder, api, waitMs }: MigrateOptions): Promise<number> {
  const sql = await connect(address, performance.now() + waitMs)
  try {
    await sql`select pg_advisory_lock(${LOCK_KEY})`
    const known = readMigrationFiles({ migrationsFolder: folder })
    const before = await appliedTimes(sql)
    const newest = known.at(-1)?.folderMillis ?? 0
    if (before.some((time) => time > newest)) {
      throw new MigrationError(
        'The database has migrations that this release does not know: it is newer than the code. Deploy that release or a later one.',
      )
    }
    await applyMigrations(drizzle(sql), { migrationsFolder: folder }).catch((cause) => {
      const reason = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause
      if (!(reason instanceof postgres.PostgresError)) throw cause
      throw new MigrationError(`A migration failed and nothing of it was kept: ${reason.message}`, { cause })
    })
    if (api) await grantApiRole(sql, api)
    return known.filter(({ folderMillis }) => !before.includes(folderMillis)).length
  } finally {
    await sql.end({ timeout: 5 })
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
    connection: { application_name: 'users-api migrate' },
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
