import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { run } from '../test/process.ts'

test('PostgreSQL and its temporary folder are gone soon after who started it was killed', async () => {
  const script = `
    import { startPostgres } from './dev/postgres.ts'
    const { port, dataDir } = await startPostgres()
    console.log('started', port, dataDir)`
  const owner = run(process.execPath, ['--input-type=module', '--eval', script])
  const [, port, dataDir] = await owner.printed(/started (\d+) (\S+)\n/)
  const connected = () => once(connect(Number(port), '127.0.0.1'), 'connect')
  expect(existsSync(dataDir as string)).toBe(true)
  owner.process.kill('SIGKILL')
  await expect.poll(() => existsSync(dataDir as string), { timeout: 30_000 }).toBe(false)
  await expect(connected()).rejects.toThrow('ECONNREFUSED')
})
