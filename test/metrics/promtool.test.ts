import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../database.ts'
import { serve } from '../service.ts'

test('promtool reads the metrics, and has nothing to say against their names', async () => {
  const database = await createTestDatabase()
  const api = await serve({ DATABASE_URL: database.url, METRICS_PORT: '0', MAX_STREAMS: '1' })
  const send = (method: string, path: string, body?: string, headers = {}) =>
    fetch(api.url + path, {
      method,
      headers: { 'content-type': 'application/json', ...headers },
      ...(body && { body }),
    })
  await send('POST', '/users', '{"username":"Alice","email":"alice@example.com"}')
  await send('GET', '/users', undefined, { accept: 'application/x-ndjson' })
  for (const path of ['/users', '/users/1', '/users/2', '/users?username=alice', '/nothing']) await send('GET', path)
  await database.sql`drop table users`
  expect((await send('GET', '/users/1')).status).toBe(500)
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: await api.metrics(),
    encoding: 'utf8',
  })
  expect(stdout + stderr).toBe('')
  expect(status).toBe(0)
  await api.stop()
  await database.drop()
})
