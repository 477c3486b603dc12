import { cpSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { copyProject, ROOT, run } from '../test/process.ts'
import { processTree } from './cpu.ts'

/** The benchmark in a folder of its own, with `program` in place of the built service. */
function bench(program: string) {
  const folder = copyProject()
  cpSync(`${ROOT}bench`, join(folder, 'bench'), { recursive: true })
  mkdirSync(join(folder, 'dist'))
  writeFileSync(join(folder, 'dist/main.js'), program)
  const running = run(process.execPath, [join(folder, 'bench/bench.ts')])
  const seen = new Set<number>()
  return {
    ...running,
    /** How many processes it has now; all are remembered. */
    look() {
      const tree = processTree(running.process.pid as number)
      for (const { pid } of tree) seen.add(pid)
      return tree.length
    },
    left: () => [...seen].filter((pid) => processTree(pid).length > 0),
  }
}

/** The benchmark, PostgreSQL with at least five processes of its own, and a server. */
const WITH_POSTGRES = 8

const SERVICE = "await import('../src/main.ts')"

test('Ctrl-C leaves no process running', async () => {
  const running = bench(`process.stderr.write('service ' + process.argv[2] + '\\n'); ${SERVICE}`)
  await running.printed(/service undefined/)
  expect(running.look()).toBeGreaterThanOrEqual(WITH_POSTGRES)
  running.process.kill('SIGINT')
  expect(await running.exited).toBe(1)
  expect(running.stderr()).toMatch(/Stopped by SIGINT\.\n$/)
  await expect.poll(running.left).toEqual([])
})

test('a service that ends instead of answering is one sentence, and no process is left running', async () => {
  const silent = "console.error('service', process.pid); setInterval(() => {}, 1000)"
  const running = bench(`if (process.argv[2] === 'migrate') { ${SERVICE} } else { ${silent} }`)
  const [, pid] = await running.printed(/service (\d+)\n/)
  expect(running.look()).toBeGreaterThanOrEqual(WITH_POSTGRES)
  process.kill(Number(pid))
  expect(await running.exited).toBe(1)
  expect(running.stderr()).toMatch(/\n.*main\.js ended before it answered\.\n$/)
  await expect.poll(running.left).toEqual([])
})

test('an option that makes no sense is one sentence', async () => {
  const wrong = run(process.execPath, ['bench/bench.ts', '--rounds', 'many'])
  expect(await wrong.exited).toBe(1)
  expect(wrong.stderr()).toBe('--rounds must be a number above 0.\n')
})
