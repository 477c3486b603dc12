import postgres from 'postgres'
import { beforeEach, describe, expect, inject, onTestFinished, test } from 'vitest'
import { migrate } from '../../src/db/migrate.ts'
import { startApi } from '../api.ts'
import { addressOf, createTestDatabase } from '../database.ts'
import { ROOT } from '../process.ts'
import { startPooler } from './pgbouncer.ts'

describe.each(['session', 'transaction'])('PgBouncer with its defaults, in %s mode', (pool_mode) => {
  const role = { user: `pooled_${process.pid}_${pool_mode}`, password: 'p', deadlineMs: 4000 }
  let port: number
  let name: string
  beforeEach(async () => {
    const database = await createTestDatabase({ empty: true })
    name = addressOf(database.url).database
    const pooler = await startPooler(database.url, [role], { pool_mode })
    port = pooler.port
    onTestFinished(async () => {
      await pooler.stop()
      await database.drop()
      const admin = postgres(inject('postgresUrl'), { max: 1 })
      await admin.unsafe(`drop owned by ${role.user}; drop role ${role.user}`)
      await admin.end()
    })
    const address = { ...addressOf(database.url), port }
    const options = { address, folder: `${ROOT}drizzle`, api: role, MIGRATE_WAIT_MS: 0 }
    expect(await migrate(options)).toMatch(/^Migrations applied: \d+\.$/)
    expect(await migrate(options)).toBe('The database is up to date.')
  })

  const url = (user: string, password: string) => `postgres://${user}:${password}@127.0.0.1:${port}/${name}`

  test('carries every request, and time-outs of the service reach no other client', async () => {
    const api = await startApi({ DATABASE_URL: url(role.user, role.password) })
    onTestFinished(api.close)
    const users = await Promise.all(
      Array.from({ length: 40 }, (_, i) =>
        api.request('POST', '/users', { username: `u${i}`, email: `u${i}@example.com` }),
      ),
    )
    expect(new Set(users.map(({ status }) => status))).toEqual(new Set([201]))
    const lines = await api.request('GET', '/users', undefined, { accept: 'application/x-ndjson' })
    expect(lines.text.trim().split('\n')).toHaveLength(users.length)
    const { id } = users[0]?.body ?? {}
    expect((await api.request('PATCH', `/users/${id}`, { username: 'changed' })).status).toBe(200)
    expect((await api.request('DELETE', `/users/${id}`)).status).toBe(204)
    // Whatever the service had set in the sessions that it shared would be there now.
    const others = postgres(url(role.user, role.password), { max: 5, fetch_types: false })
    onTestFinished(() => others.end())
    const settings = await Promise.all(
      Array.from(
        { length: 10 },
        () => others`select name from pg_settings where source = 'session'
        and name in ('statement_timeout', 'lock_timeout', 'search_path', 'standard_conforming_strings')`,
      ),
    )
    expect(settings.flat()).toEqual([])
    expect(await others`show statement_timeout`).toEqual([{ statement_timeout: `${0.9 * role.deadlineMs}ms` }])
  })
})

test('PgBouncer in statement mode carries no migration, which is a transaction', async () => {
  const database = await createTestDatabase({ empty: true })
  const pooler = await startPooler(database.url, [], { pool_mode: 'statement' })
  onTestFinished(async () => {
    await pooler.stop()
    await database.drop()
  })
  const address = { ...addressOf(database.url), port: pooler.port }
  const migrating = migrate({ address, folder: `${ROOT}drizzle`, api: undefined, MIGRATE_WAIT_MS: 0 })
  await expect(migrating).rejects.toThrow('The connection was lost while migrating')
})
