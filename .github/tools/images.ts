/** Fails unless Renovate, which is in PATH, reads every image that a file names: then it pins it by digest, and keeps it current. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

type PackageFile = { packageFile: string; deps: { depName?: string; currentValue?: string }[] }

const NAMED = /^(?:FROM (?:--platform=\S+ )?|[\s-]*image(?:Name)?: )["']?([^\s"'@]+)/gm
const OURS = /(^|\/)users-api(:|$)|^scratch$/

const folder = mkdtempSync(join(tmpdir(), 'renovate-'))
const env = { ...process.env, RENOVATE_BASE_DIR: folder, LOG_FORMAT: 'json', LOG_LEVEL: 'debug' }
const log = execFileSync('renovate', ['--platform=local', '--dry-run=extract'], {
  encoding: 'utf8',
  env,
  maxBuffer: 2 ** 26,
})
rmSync(folder, { recursive: true })

const line = log.split('\n').find((it) => it.includes('"msg":"Extracted dependencies"')) ?? '{}'
const managers: Record<string, PackageFile[]> = JSON.parse(line).packageFiles ?? {}
const read = new Set(
  Object.values(managers)
    .flat()
    .flatMap(({ packageFile, deps }) => deps.map((dep) => `${packageFile}: ${dep.depName}:${dep.currentValue}`)),
)

const files = execFileSync('git', ['ls-files', 'Dockerfile', '*.yaml'], { encoding: 'utf8' }).trim().split('\n')
const named = files.flatMap((file) =>
  [...readFileSync(file, 'utf8').matchAll(NAMED)]
    .map(([, image = '']) => image)
    .filter((image) => !OURS.test(image))
    .map((image) => `${file}: ${image}`),
)
const missed = named.filter((it) => !read.has(it))
if (named.length === 0 || missed.length > 0) {
  console.error(`Renovate does not read these images (.github/renovate.json):\n${missed.join('\n')}`)
  process.exitCode = 1
}
console.log(`Renovate reads ${named.length - missed.length} of ${named.length} images`)
