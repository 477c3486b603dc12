import { fileURLToPath } from 'node:url'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import type { Address } from '../src/db/address.ts'
import { connect } from '../src/db/connection.ts'
import { DatabaseUnavailable, unavailable } from '../src/db/unavailable.ts'
import { retry, TransientError } from '../src/retry.ts'
import { aloud, DevError, type Say } from './messages.ts'

const MIGRATIONS = fileURLToPath(new URL('../drizzle', import.meta.url))

const CLOSE_TIMEOUT_S = 1

/** What a person is told of where the database is: everything but the password. */
export const describe = ({ host, port, database, user }: Address) => `postgres://${user}@${host}:${port}/${database}`

/**
 * Waits up to `waitMs` for the database, and says so.
 * @returns whether it has tables, and none of our migrations: it belongs to something else then
 * @throws DevError or TransientError when it cannot be used; an AbortError when `signal` is aborted
 */
export function isForeign(address: Address, waitMs: number, say: Say, signal: AbortSignal): Promise<boolean> {
  let told = ''
  return retry(
    waitMs,
    async () => {
      try {
        return await aloud(say, () => `Waiting for an answer of ${describe(address)}.`, hasForeignTables(address))
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error)
        const sentence = `The database ${describe(address)} cannot be used: ${reason}.`
        // What the network or a starting PostgreSQL says passes.
        if (!unavailable(error instanceof DatabaseUnavailable ? error.cause : error)) throw new DevError(sentence)
        if (told !== reason) say(`${sentence} Trying again for up to ${Math.round(waitMs / 1000)} s.`)
        told = reason
        throw new TransientError(sentence)
      }
    },
    signal,
  )
}

async function hasForeignTables(address: Address): Promise<boolean> {
  const { sql } = await connect({ address, applicationName: 'users-api dev' })
  try {
    const [found] = await sql`
      select exists (select from pg_tables where schemaname not in ('pg_catalog', 'information_schema', 'drizzle')) as tables,
        to_regclass('drizzle.__drizzle_migrations') is not null as migrations`
    if (!found?.tables) return false
    if (!found.migrations) return true
    const ours = readMigrationFiles({ migrationsFolder: MIGRATIONS }).map(({ folderMillis }) => folderMillis)
    const rows = await sql`select created_at from drizzle.__drizzle_migrations`
    return !rows.some(({ created_at }) => ours.includes(Number(created_at)))
  } finally {
    await sql.end({ timeout: CLOSE_TIMEOUT_S })
  }
}
