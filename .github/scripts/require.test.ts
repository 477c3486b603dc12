import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const require = (env: NodeJS.ProcessEnv) =>
  spawnSync(join(import.meta.dirname, 'require'), ['FIRST', 'SECOND'], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...env },
  })

test('says nothing when every setting is there', () => {
  expect(require({ FIRST: 'a', SECOND: 'b' })).toMatchObject({ status: 0, stdout: '', stderr: '' })
})

test.each([
  [{ FIRST: 'a' }, 'SECOND'],
  [{ FIRST: 'a', SECOND: '' }, 'SECOND'],
  [{}, 'FIRST'],
])('ends with one sentence when %j is all there is', (env, name) => {
  const { status, stderr } = require(env)
  expect(status).toBe(1)
  expect(stderr).toMatch(new RegExp(`^::error::The secret ${name} is not set: .+\\.\n$`))
})
