import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { expect, inject } from 'vitest'
import { parseAddress } from '../src/db/address.ts'
import type { Parameter, Row } from '../src/db/connection.ts'
import { createPool, type Pool, type PoolOptions } from '../src/db/pool.ts'

export const addressOf = parseAddress

export type TestDatabase = { url: string; sql: postgres.Sql; drop(): Promise<void> }

/** A database of its own, with the migrations unless `empty`. */
export async function createTestDatabase({ empty = false } = {}): Promise<TestDatabase> {
  const server = inject('postgresUrl')
  const name = `test_${randomBytes(6).toString('hex')}`
  const admin = postgres(server.replace(/\/postgres$/, '/template1'), { max: 1, onnotice: () => {} })
  await admin.unsafe(`create database ${name} template ${empty ? 'template0' : 'migrated'}`)
  const url = server.replace(/\/postgres$/, `/${name}`)
  const sql = postgres(url, { max: 2, onnotice: () => {} })
  return {
    url,
    sql,
    async drop() {
      await sql.end()
      await admin.unsafe(`drop database ${name} with (force)`)
      await admin.end()
    },
  }
}

/** Waits until so many statements on the database wait for a lock. */
export const waitingForLock = ({ sql }: TestDatabase, count: number) =>
  expect
    .poll(() => sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
    .toHaveLength(count)

export type TestPool = Pool & {
  url: string
  sql: postgres.Sql
  /** Run a statement with the pool's own deadline. */
  read(text: string, parameters?: readonly Parameter[]): Promise<Row[]>
  write(text: string, parameters?: readonly Parameter[]): Promise<Row[]>
  /** The processes of PostgreSQL that serve the pool. */
  backends(): Promise<number[]>
  close(): Promise<void>
}

/** A pool on a database of its own, or on `address`. */
export async function createTestPool({ empty = false, ...options }: Partial<PoolOptions> & { empty?: boolean } = {}) {
  const database = await createTestDatabase({ empty })
  const { sql, url } = database
  const pool = createPool({
    address: addressOf(url),
    applicationName: 'test',
    connections: 9,
    deadlineMs: 5000,
    ...options,
  })
  await pool.opened
  const within = () => performance.now() + pool.deadlineMs
  return {
    ...pool,
    url,
    sql,
    read: (text: string, parameters: readonly Parameter[] = []) => pool.query('read', text, parameters, within()),
    write: (text: string, parameters: readonly Parameter[] = []) => pool.query('write', text, parameters, within()),
    async backends() {
      const rows = await sql`
        select pid from pg_stat_activity where application_name = 'test' and datname = current_database() order by pid`
      return rows.map(({ pid }) => Number(pid))
    },
    async close() {
      await pool.close(1000)
      await database.drop()
    },
  } satisfies TestPool
}
