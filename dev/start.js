// What `npm run dev` and `npm run db:migrate` run first: JavaScript that an older Node reads too, so that half an
// install is told in one sentence.
const REPAIR = 'npm ci --include=dev --include=optional --ignore-scripts=false'
const NODE_MAJOR = 24

/** The settings that make `npm ci` leave something out, as far as they stand now. */
function causes() {
  const { NODE_ENV, npm_config_omit: omit, npm_config_ignore_scripts: ignoreScripts } = process.env
  const found = []
  // npm sets NODE_ENV itself where it leaves out what is for developing.
  if (omit) found.push(`npm's setting omit=${omit.trim().split(/\s+/).join(',')}`)
  else if (NODE_ENV === 'production') found.push('NODE_ENV=production')
  if (ignoreScripts === 'true') found.push("npm's setting ignore-scripts")
  return found.length === 0 ? '' : ` because of ${found.join(' and ')}`
}

function incomplete(what) {
  process.stderr.write(`${what}: the install is not complete${causes()}. Run: ${REPAIR}\n`)
  process.exit(1)
}

const { node } = process.versions
if (Number(node.split('.')[0]) < NODE_MAJOR) {
  incomplete(`This is Node ${node}, and the Node ${NODE_MAJOR} that npm installs with the project is missing`)
}

const [, , command, ...args] = process.argv
try {
  const { main } = await import(command === 'migrate' ? './migrate.ts' : './dev.ts')
  process.exit(await main(args))
} catch (error) {
  const missing = /^Cannot find (?:package|module) '([^'./][^']*)'/.exec(error?.message ?? '')
  if (missing) incomplete(`The package ${missing[1]} is missing`)
  throw error
}
