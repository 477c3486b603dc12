import { expect, test } from 'vitest'
import { run } from '../test/process.ts'
import { cpuSeconds, psSeconds, residentMB } from './cpu.ts'

/** A program that uses 0.4 s of CPU time. */
const BURN = 'while (process.cpuUsage().user < 400_000) for (let i = 0; i < 1e6; i++);'

test('CPU time is that of a process, of its children, and of children that have ended', async () => {
  const script = `
    import { spawn, spawnSync } from 'node:child_process'
    ${BURN}
    spawnSync(process.execPath, ['--eval', '${BURN}'])
    const program = '${BURN} console.log("burnt"); process.stdin.resume()'
    spawn(process.execPath, ['--eval', program], { stdio: ['pipe', 'inherit', 'inherit'] })`
  const parent = run(process.execPath, ['--input-type=module', '--eval', script])
  await parent.printed(/burnt/)
  const seconds = cpuSeconds(parent.process.pid as number)
  expect(seconds).toBeGreaterThan(1.1)
  // A wrong unit would be far away.
  expect(seconds).toBeLessThan(50)
  parent.process.kill()
  await parent.exited
})

test.each([
  ['0:01.50', 1.5],
  ['62:03.00', 3723],
  ['1:02:03', 3723],
  ['2-00:00:01', 172_801],
])('ps means by %s %d seconds', (time, seconds) => {
  expect(psSeconds(time)).toBe(seconds)
})

test('resident memory is in MB', () => {
  const own = process.memoryUsage.rss() / 1024 / 1024
  expect(residentMB(process.pid) / own).toBeGreaterThan(0.5)
  expect(residentMB(process.pid) / own).toBeLessThan(2)
})
