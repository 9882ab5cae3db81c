import { build } from 'esbuild'
await build({entryPoints:['/work/main/test/kit/index.ts'],bundle:true,platform:'node',format:'esm',outfile:'/work/main/node_modules/.cache/kit.mjs',packages:'external',logLevel:'error'})
const {TestHosts,PostgresServer,awaitCondition,sql,TestCluster}=await import('/work/main/node_modules/.cache/kit.mjs')
let t=performance.now(); const lap=(s)=>{console.log(s,Math.round(performance.now()-t));t=performance.now()}
const h=await TestHosts.create({hosts:[{name:'pg1',smallDisk:{path:'/var/lib/postgresql/15',sizeMb:200}},{name:'pg2',login:'admin',without:['/usr/bin/zstd']},{name:'pg3',login:'root',sshdConfig:'Banner /etc/hostname'}]})
lap('create')
try {
const pg1=new PostgresServer(h,'pg1'), pg2=new PostgresServer(h,'pg2')
await pg1.init(); lap('init')
await pg1.start(); lap('start')
console.log(await pg1.sql('SELECT 1 AS a, true AS b, null AS c, pg_current_wal_lsn() lsn')); lap('sql')
console.log(await pg1.sql(`CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1,'x"y,
z'),(2,null),(3,'') RETURNING *`)); lap('sql')
console.log(await pg1.lsn('flush'), await pg1.isInRecovery()); lap('lsn')
await h.exec('pg2',['/usr/lib/postgresql/15/bin/pg_basebackup','-D',pg2.dataDir,'-d',`host=${h.addressOf('pg1')} application_name=pg2`,'-R','-c','fast'],{user:'postgres'}); lap('basebackup')
await pg2.start(); await pg1.awaitStreaming('pg2'); lap('streaming'); await pg2.awaitCatchup(pg1); lap('catchup')
await h.powerOff('pg1'); lap('off')
await h.powerOn('pg1'); lap('on')
console.log(await pg1.isRunning()); await pg1.start(); lap('start'); await pg1.awaitStreaming('pg2'); lap('stream again')
await pg1.kill9(); lap('kill9'); console.log(await pg1.isRunning(), (await h.exec('pg1','ps axf')).stdout)
await pg1.start()
await h.fillDisk('pg1','/var/lib/postgresql/15'); console.log((await h.exec('pg1','df /var/lib/postgresql/15; ls -la /var/lib/postgresql/15')).stdout); await h.freeDisk('pg1','/var/lib/postgresql/15'); lap('fill')
await h.cutLink('pg2','pg1'); lap('cut')
console.log((await h.exec('pg2',`timeout 1 bash -c 'echo >/dev/tcp/${h.addressOf('pg1')}/22' ; echo $?; timeout 1 bash -c 'echo >/dev/tcp/${h.addressOf('pg3')}/22'; echo $?`)).stdout)
await h.restoreLink('pg2','pg1'); lap('restore')
await h.cutLink('pg2'); console.log((await h.ssh('pg2','true',{check:false})).stderr); await h.restoreLink('pg2'); lap('cut all')
await h.cutLink('pg2','control',{port:5432}); console.log((await h.ssh('pg2','echo fine',{check:false})).stdout); await h.restoreLink('pg2'); lap('cut port')
for (const rate of [undefined,'200mbit']) { await h.limitLink('pg1',rate); let s=performance.now(); await h.exec('pg2',`timeout 20 bash -c 'head -c 25000000 < <(exec 3<>/dev/tcp/${h.addressOf('pg1')}/9000; cat <&3)' | wc -c & true`,{check:false}).catch(()=>{}) }
await h.stopSshd('pg3'); console.log((await h.ssh('pg3','true',{check:false})).stderr); await h.startSshd('pg3'); console.log((await h.ssh('pg3','echo back')).stdout); lap('sshd')
await h.rotateHostKey('pg3'); console.log((await h.ssh('pg3','true',{check:false})).stderr);await h.writeKnownHosts(); console.log((await h.ssh('pg3','echo back')).stdout); lap('rotate')
await h.setLoginShell('pg3','root','/usr/bin/fish'); console.log((await h.ssh('pg3','echo $FISH_VERSION')).stdout); 
console.log(await h.pids('pg3','sshd'))
const c=await TestCluster.create(h); console.log(await h.exec('pg1','true').then(()=>c.inventoryFile)); console.log((await import('fs')).readFileSync(c.inventoryFile,'utf8'))
} finally { t=performance.now()
await h.destroy(); lap('destroy') }
