import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { copyProject, run } from '../test/process.ts'

test('a table that changed without a migration is told each time, and nothing is written', async () => {
  const folder = copyProject()
  const check = () => run(process.execPath, [join(folder, 'dev/check-migrations.ts')])
  expect(await check().exited).toBe(0)

  const table = join(folder, 'src/users/table.ts')
  writeFileSync(table, readFileSync(table, 'utf8').replace('email: text()', 'note: text(),\n    email: text()'))
  const before = readdirSync(join(folder, 'drizzle'), { recursive: true })
  for (const _ of ['first', 'second']) {
    const changed = check()
    expect(await changed.exited).toBe(1)
    expect(changed.stderr()).toMatch(/^The tables have changed since the last migration: .*\n$/)
  }
  expect(readdirSync(join(folder, 'drizzle'), { recursive: true })).toEqual(before)
})
