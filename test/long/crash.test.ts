import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { bundle } from '../../dev/build.ts'
import { createTestDatabase } from '../database.ts'
import { ROOT, run } from '../process.ts'

const KILLS = 200
const AT_A_TIME = 4
const CLIENTS = 8

test(`the process is killed ${KILLS} times amid POSTs: every 201 is in the database`, {
  timeout: 240_000,
}, async () => {
  const database = await createTestDatabase()
  const folder = mkdtempSync(join(tmpdir(), 'users-api-crash-'))
  // It says that .js is a module.
  cpSync(`${ROOT}package.json`, join(folder, 'package.json'))
  await bundle(folder)
  const env = { DATABASE_URL: database.url, PORT: '0', HOST: '127.0.0.1' }
  const created: number[] = []
  let name = 0

  /** Creates one user after the other until the process is gone. */
  async function post(url: string, onCreated: () => void) {
    for (;;) {
      name++
      const body = JSON.stringify({ username: `crash${name}`, email: `crash${name}@example.com` })
      const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body }
      const response = await fetch(url, init).catch(() => undefined)
      if (!response) return
      expect(response.status).toBe(201)
      // The status line has come: from then on the user must be there, even if the body did not arrive.
      created.push(Number(response.headers.get('location')?.slice('/users/'.length)))
      onCreated()
      await response.body?.cancel().catch(() => {})
    }
  }

  async function killOnce() {
    const api = run(process.execPath, [join(folder, 'main.js')], env)
    const [, port] = await api.printed(/"port":(\d+),"msg":"listening"/)
    const amid = Promise.withResolvers<void>()
    let count = 0
    const clients = Array.from({ length: CLIENTS }, () =>
      post(`http://127.0.0.1:${port}/users`, () => {
        count++
        if (count === CLIENTS) amid.resolve()
      }),
    )
    await Promise.race([amid.promise, Promise.all(clients)])
    await sleep(Math.random() * 20)
    api.process.kill('SIGKILL')
    await Promise.all([api.exited, ...clients])
  }

  let left = KILLS
  await Promise.all(
    Array.from({ length: AT_A_TIME }, async () => {
      while (left-- > 0) await killOnce()
    }),
  )
  const rows = await database.sql`select id::int from users where id = any(${created})`
  expect(created.length).toBeGreaterThanOrEqual(KILLS * CLIENTS)
  expect(new Set(created).size).toBe(created.length)
  expect(rows).toHaveLength(created.length)
  rmSync(folder, { recursive: true })
  await database.drop()
})
