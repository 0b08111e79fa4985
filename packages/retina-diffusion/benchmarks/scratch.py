import time, torch, numpy as np, copy
from PIL import Image
from retina_diffusion import phantom, flow, times, solvers
from retina_diffusion.nextdit import NextDiT, Shape
torch.manual_seed(0); S=64
t0=time.time(); D=[phantom.draw(S,i) for i in range(1200)]; X=torch.tensor(np.stack([d.image for d in D])).permute(0,3,1,2).float()/127.5-1; M=torch.tensor(np.stack([d.masks for d in D])); print('draw',time.time()-t0,flush=True)
tr=slice(0,1100)
net=NextDiT(Shape(128,4,4,4,patch=8,caption_dim=16,masks=7,multiple_of=32,bottleneck=64)); print(sum(p.numel() for p in net.parameters()))
cap=torch.zeros(1,1,16)
opt=torch.optim.AdamW(net.parameters(),1e-3,betas=(.9,.95),weight_decay=0.); ema=copy.deepcopy(net)
T=270; t0=time.time(); step=0; B=64; ls=[]
while time.time()-t0<T:
    fr=(time.time()-t0)/T
    for g in opt.param_groups: g['lr']=1e-3*min(1,(step+1)/50)*(1 if fr<.6 else max(.02,(1-fr)/.4))
    i=torch.randint(0,1100,(B,)); x1=X[i]; m=M[i]; flip=torch.rand(B)<.5; x1=torch.where(flip[:,None,None,None],x1.flip(-1),x1); m=torch.where(flip[:,None,None,None],m.flip(-1),m)
    t=times.logit_normal(B,-.8,.8); x0=torch.randn_like(x1); xt=flow.at(x0,x1,t)
    p=net(xt,t,cap.expand(B,-1,-1),masks_BMHW=m); rest=(1-t).clamp(min=.05).view(-1,1,1,1)
    loss=(((p-x1)/rest)**2).mean(); opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(net.parameters(),1.); opt.step(); step+=1; ls.append(loss.item())
    with torch.no_grad():
        for a,b in zip(ema.parameters(),net.parameters()): a.lerp_(b,.005 if step>100 else .2)
    if step%200==0: print(step,round(time.time()-t0),round(np.mean(ls[-100:]),4),flush=True)
ema.eval(); m=M[1100:1108]
with torch.no_grad():
    t1=time.time()
    out=solvers.solve(lambda x,t: flow.velocity_of_x(ema(x,t.float().expand(len(x)),cap.expand(len(x),-1,-1),masks_BMHW=m),x,t.float().expand(len(x))),torch.randn(8,3,S,S),times.steps(25),'heun'); print('sample',time.time()-t1,out.evaluations)
f=lambda z:np.concatenate(list(((z.clamp(-1,1)+1)*127.5).byte().permute(0,2,3,1).numpy()),1)
mm=torch.stack([m[:,0]+m[:,1]+m[:,5]*.5,m[:,2]+m[:,4],m[:,3]],1).clamp(0,1)*2-1
Image.fromarray(np.concatenate([f(X[1100:1108]),f(mm),f(out.x_B)],0)).resize((8*160,3*160),0).save('scratch.png'); print(step,'steps')
