import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { inject } from 'vitest'
import { parseConfig } from '../src/config.ts'
import type { Address } from '../src/db/address.ts'

export const addressOf = (url: string): Address => parseConfig({ DATABASE_URL: url }).database.address

export type TestDatabase = { url: string; sql: postgres.Sql; drop(): Promise<void> }

/** A database of its own, with the migrations unless `empty`. */
export async function createTestDatabase({ empty = false } = {}): Promise<TestDatabase> {
  const server = inject('postgresUrl')
  const name = `test_${randomBytes(6).toString('hex')}`
  const admin = postgres(server.replace(/\/postgres$/, '/template1'), { max: 1, onnotice: () => {} })
  await admin.unsafe(`create database ${name} template ${empty ? 'template0' : 'postgres'}`)
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
