import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'
import { type MigrationMeta, readMigrationFiles } from 'drizzle-orm/migrator'
import postgres from 'postgres'
import type { Config } from '../config.ts'
import { retry, TransientError } from '../retry.ts'
import type { Address } from './address.ts'
import { connect, serverTimeouts } from './connection.ts'
import { DatabaseUnavailable, unavailable } from './unavailable.ts'

/** `folder` holds the migrations that drizzle-kit generated. */
export type MigrateOptions = Pick<Config, 'address' | 'api' | 'MIGRATE_WAIT_MS'> & { folder: string }

/** The key of the advisory lock that migrations hold; any number that nothing else in the database uses. */
const LOCK_KEY = 7_203_411
/** PostgreSQL 18, as `server_version_num` has it. */
const MIN_VERSION = 180_000
/** While a migration waits for a table, everybody else who needs it waits behind it. */
const LOCK_TIMEOUT_MS = 1000
/** A process that pauses, or whose machine is gone, holds its locks no longer than that. */
const IDLE_TIMEOUT_MS = 10_000
const CLOSE_TIMEOUT_S = 1
/** SQLSTATEs (PostgreSQL, appendix A). */
const LOCK_NOT_AVAILABLE = '55P03'
const INVALID_PASSWORD = '28P01'
/** How often a password is hashed, as PostgreSQL has it (its setting scram_iterations). */
const SCRAM_ITERATIONS = 4096

const LOST_SECRET =
  'A volume keeps the password that it was made with: if the Secret was lost or changed since, see docs/failures.md#a-lost-secret.'

/**
 * Brings the database to this release: applies what is missing of `folder`, and creates and grants the API's role.
 * All of it is one transaction that holds a lock, so any number of processes may start at once.
 * @returns a sentence for the operator: what became of the tables
 * @throws with a sentence for the operator when a migration fails, the connection is lost, or `MIGRATE_WAIT_MS` are over;
 * nothing is half-applied
 */
export async function migrate({ address, folder, api, MIGRATE_WAIT_MS }: MigrateOptions) {
  const migrations = readMigrationFiles({ migrationsFolder: folder })
  return retry(MIGRATE_WAIT_MS, () => attempt(address, migrations, api).catch((error) => explain(error, address)))
}

/** Migrates on a connection of its own. Closing it also ends a transaction that failed. */
async function attempt(address: Address, migrations: MigrationMeta[], api: MigrateOptions['api']) {
  const { sql } = await connect({ address, applicationName: 'users-api migrate' })
  try {
    // Not sql.begin: when the connection closes meanwhile, postgres.js throws where nothing can catch it.
    // The time-outs are set here, because a pooler refuses or drops them as options of the connection.
    await sql.unsafe(`begin; set local statement_timeout = 0; set local lock_timeout = ${LOCK_TIMEOUT_MS};
      set local idle_in_transaction_session_timeout = ${IDLE_TIMEOUT_MS}`)
    await checkServer(sql)
    const [row] = await sql`select pg_try_advisory_xact_lock(${LOCK_KEY}) as locked`
    if (!row?.locked) throw new TransientError('Another process is still migrating the database: try again later.')
    const applied = await apply(sql, migrations)
    if (api) await grantApiRole(sql, api)
    await sql`commit`
    return applied
  } finally {
    await sql.end({ timeout: CLOSE_TIMEOUT_S })
  }
}

/** @throws when the server lacks what the migrations use: `casefold` came with PostgreSQL 18, and needs Unicode */
async function checkServer(sql: postgres.Sql) {
  const [{ number, version, encoding } = {}] = await sql`select current_setting('server_version_num')::int as number,
    current_setting('server_version') as version, current_setting('server_encoding') as encoding`
  if (number >= MIN_VERSION && encoding === 'UTF8') return
  throw new Error(`PostgreSQL 18 or newer with the encoding UTF8 is needed, and this is ${version} with ${encoding}.`)
}

/** Throws the error with a sentence for the operator; as it is if it tells neither of a statement nor of the connection. */
function explain(error: unknown, { host, port }: Address): never {
  if (error instanceof DatabaseUnavailable) {
    // What the network or a starting PostgreSQL says passes.
    const Reason = unavailable(error.cause) ? TransientError : Error
    const hint = error.code === INVALID_PASSWORD ? `. ${LOST_SECRET}` : ''
    throw new Reason(`The database at ${host}:${port} cannot be used: ${error.message}${hint}`, { cause: error })
  }
  if (error instanceof postgres.PostgresError) {
    const { message, code } = error
    if (code !== LOCK_NOT_AVAILABLE) throw new Error(`The migration failed and nothing of it was kept: ${message}`)
    throw new TransientError('A long transaction holds a table that a migration changes: try again later.')
  }
  if (!unavailable(error)) throw error
  throw new Error('The connection was lost while migrating. Either all was kept or nothing: try again.')
}

/**
 * Applies and records the migrations that are missing, as drizzle's own migrator does.
 * @returns a sentence for the operator: what became of the tables
 * @throws when they do not follow those that the database has had
 */
async function apply(sql: postgres.Sql, migrations: MigrationMeta[]) {
  // Only where it is missing: even `if not exists` needs the right to create.
  const [found] = await sql`select to_regclass('drizzle.__drizzle_migrations') as record`
  if (!found?.record) {
    await sql`create schema if not exists drizzle`
    await sql`create table drizzle.__drizzle_migrations (id serial primary key, hash text not null, created_at bigint)`
  }
  const rows = await sql`select created_at from drizzle.__drizzle_migrations`
  const applied = rows.map(({ created_at }) => Number(created_at))
  const missing = migrations.filter(({ folderMillis }) => !applied.includes(folderMillis))
  if (missing.some(({ folderMillis }) => applied.some((later) => folderMillis < later))) {
    throw new Error('A migration is older than one that the database has had: remove it and generate it anew.')
  }
  // A release that was rolled back: the one before works with a newer database too.
  const isNewer = missing.length === 0 && applied.length > migrations.length
  if (isNewer) return 'The database is newer than this release: its tables stay as they are.'
  for (const { sql: statements, hash, folderMillis } of missing) {
    for (const statement of statements) await sql.unsafe(statement)
    await sql`insert into drizzle.__drizzle_migrations (hash, created_at) values (${hash}, ${folderMillis})`
  }
  return missing.length === 0 ? 'The database is up to date.' : `Migrations applied: ${missing.length}.`
}

/**
 * Creates the role that the API logs in as if it is missing, and gives it this password and its rights.
 * The API may use the rows of the tables, where the migrations made them, and change nothing else: neither tables nor
 * migrations. Its time-outs are defaults of its role, because a pooler refuses them as options of the connection.
 */
async function grantApiRole(sql: postgres.Sql, { user, password, deadlineMs }: NonNullable<MigrateOptions['api']>) {
  // Quoted by PostgreSQL: postgres.js would take a dot in a name for a schema's.
  const [{ role, database, schema, found } = {}] = await sql`select quote_ident(${user}) as role,
    quote_ident(current_database()) as database, quote_ident(coalesce(current_schema(), 'public')) as schema,
    exists (select from pg_roles where rolname = ${user}) as found`
  if (!found) await sql.unsafe(`create role ${role} login`)
  await sql.unsafe(`alter role ${role} login password '${scramVerifier(password)}'`)
  for (const setting of [`search_path = ${schema}`, ...serverTimeouts(deadlineMs)]) {
    await sql.unsafe(`alter role ${role} in database ${database} set ${setting}`)
  }
  await sql.unsafe(`grant usage on schema ${schema} to ${role}`)
  await sql.unsafe(`grant select, insert, update, delete on all tables in schema ${schema} to ${role}`)
}

/**
 * The form in which PostgreSQL keeps a password (RFC 5803). Statements that hold it leave the password in no log, as
 * with psql's \password. Of SASLprep (RFC 4013), which makes the forms of a letter one, it has the normal form.
 */
function scramVerifier(password: string): string {
  const salt = randomBytes(16)
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, SCRAM_ITERATIONS, 32, 'sha256')
  const key = (name: string) => createHmac('sha256', salted).update(name).digest()
  const stored = createHash('sha256').update(key('Client Key')).digest('base64')
  return `SCRAM-SHA-256$${SCRAM_ITERATIONS}:${salt.toString('base64')}$${stored}:${key('Server Key').toString('base64')}`
}
