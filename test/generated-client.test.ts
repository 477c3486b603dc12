import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { startApi } from './api.ts'
import { ROOT, run } from './process.ts'

/** Uses a client that was made from the description. The comments of TypeScript say what it must refuse. */
const program = (url: string) => `
import { ApiError, configure, createUser, deleteUser, getUser, listUsers, patchUser } from './client.ts'
import type { Problem, User } from './client.ts'

configure({ serverUrl: '${url}' })
const alice: User = await createUser({ body: { username: 'Alice', email: 'alice@example.com' } })
const changed: User = await patchUser({ path: { id: alice.id }, body: { email: 'a@example.com' }, headers: { 'If-Match': '"1"' } })
const { users, next } = await listUsers({ query: { limit: 10, username: 'alice' } })
const cursor: string | null = next
await deleteUser({ path: { id: alice.id } })
const problems = []
try {
  await getUser({ path: { id: alice.id } })
} catch (error) {
  if (error instanceof ApiError) problems.push((error.body as Problem).detail)
}
try {
  // @ts-expect-error: a user has an email.
  await createUser({ body: { username: 'Bob' } })
} catch (error) {
  if (error instanceof ApiError) problems.push((error.body as Problem).errors?.[0]?.pointer)
}
console.log(JSON.stringify({ alice, changed, users, cursor, problems }))
`

const TSC =
  `--ignoreConfig --noEmit --strict --exactOptionalPropertyTypes --noUncheckedIndexedAccess --allowImportingTsExtensions
  --module nodenext --target es2024 --lib es2024,dom,dom.iterable`.split(/\s+/)

test('a client that is generated from the description has the types of the answers', async () => {
  const api = await startApi()
  onTestFinished(() => api.close())
  const folder = mkdtempSync(join(tmpdir(), 'generated-client-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = (name: string) => join(folder, name)
  writeFileSync(file('package.json'), '{ "type": "module" }')
  writeFileSync(file('openapi.json'), (await api.request('GET', '/openapi.json')).text)
  writeFileSync(file('program.ts'), program(api.url))
  const succeeds = async (args: string[]) => {
    const running = run(process.execPath, args, { REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true' })
    expect(await running.exited, running.output()).toBe(0)
    return running.stdout()
  }

  const generate = ['generate-client', file('openapi.json'), '--output', file('client.ts')]
  const options = ['--import-ext', 'ts', '--args-style', 'grouped']
  await succeeds([`${ROOT}node_modules/@redocly/cli/bin/cli.js`, ...generate, ...options])
  await succeeds([`${ROOT}node_modules/typescript/bin/tsc`, ...TSC, file('program.ts')])
  const alice = { id: 1, username: 'Alice', email: 'alice@example.com' }
  const changed = { ...alice, email: 'a@example.com' }
  expect(JSON.parse(await succeeds([file('program.ts')]))).toMatchObject({
    alice,
    changed,
    users: [changed],
    cursor: null,
    problems: ['There is no user with this id.', '/email'],
  })
})
