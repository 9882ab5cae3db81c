import { build } from 'esbuild'
await build({entryPoints:['/work/main/test/kit/index.ts'],bundle:true,platform:'node',format:'esm',outfile:'/work/main/node_modules/.cache/kit.mjs',packages:'external',logLevel:'error'})
const {TestHosts,PostgresServer,installPostgres11}=await import('/work/main/node_modules/.cache/kit.mjs')
let t=performance.now(); const lap=(s)=>{console.log(s,Math.round(performance.now()-t));t=performance.now()}
const h=await TestHosts.create({hosts:[{name:'pg1'},{name:'pg2'}]})
lap('create')
try {
await installPostgres11(h,'pg1'); lap('install 11')
await installPostgres11(h,'pg2'); lap('install 11')
const o={binDir:'/usr/lib/postgresql/11/bin',dataDir:'/var/lib/postgresql/11/shop',socketDirectory:'/var/run/postgresql'}
const pg1=new PostgresServer(h,'pg1',o), pg2=new PostgresServer(h,'pg2',o)
await pg1.init(['wal_log_hints=on']); lap('init')
await pg1.start(); lap('start')
console.log(await pg1.sqlValue('select version()'))
await pg1.sql('create table t(a int); insert into t select generate_series(1,1000); checkpoint')
console.log((await pg1.run('pg_controldata',[pg1.dataDir])).stdout); lap('cd')
await pg1.run('pg_controldata',[pg1.dataDir]); lap('cd')
console.log(await pg1.sql('select * from pg_control_checkpoint(), pg_control_system(), pg_control_init(), pg_control_recovery()'))
await pg2.run('pg_basebackup',['-D',pg2.dataDir,'-d',`host=${h.addressOf('pg1')} application_name=pg2`,'-R','-c','fast']); lap('bb')
console.log(await h.readFile('pg2',pg2.dataDir+'/recovery.conf'))
await pg2.start().catch(e=>console.log(e)); await pg1.awaitStreaming('pg2',{timeoutMs:3000}).catch(async()=>{console.log((await h.exec('pg2','tail -5 /var/lib/postgresql/11/shop.log')).stdout); await pg2.stop(); await h.writeFile('pg2',pg2.dataDir+'/recovery.conf',`standby_mode=on\nprimary_conninfo='host=${h.addressOf('pg1')} application_name=pg2 user=postgres'\nrecovery_target_timeline=latest\ntrigger_file='/tmp/t'\n`,{owner:'postgres'}); await pg2.start(); await pg1.awaitStreaming('pg2')}); lap('stream')
console.log(await h.exec('pg2','head -2 /proc/$(head -1 /var/lib/postgresql/11/shop/postmaster.pid)/environ | tr "\\0" "\\n"'))
for (const p of ['pg_controldata','psql','pg_basebackup','postgres','initdb','pg_ctl','pg_isready','pg_receivewal']) console.log((await pg1.run(p,['--version'])).stdout.trim())
await pg1.stop(); await pg2.stop()
for (const s of [pg1,pg2]) console.log(await s.controlData())
} finally { t=performance.now()
await h.destroy(); lap('destroy') }
